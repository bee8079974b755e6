"""Labels worth a second look: regions, masks and files that several models contradict, each out of fold."""
