"""Mechanism: plain arguments and arrays in, arrays out. Never sees `Config`, never imports a root file."""
