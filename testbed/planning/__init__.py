"""What a run is to be, before anything is started."""
