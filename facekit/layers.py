"""Layers of our own, registered under the package name "tupletface" so that saved models find them."""
