"""Models of sound: speech, speakers, lip sync, features."""
