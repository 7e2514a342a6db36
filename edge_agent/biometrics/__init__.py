"""Templates in use: galleries, sensors opened for one session, and who it is that they see."""
