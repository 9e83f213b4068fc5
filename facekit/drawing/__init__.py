"""Drawing faces: who a person is, how a picture shows them, and the paint. `facekit.synthetic` is the way in."""
