"""Missing classes of label maps, whatever model makes them: files and figures."""
