"""ZKAccess C3 and inBio panels: TCP 4370, one client at a time."""
