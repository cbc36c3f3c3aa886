"""Files of videos and images: frames in, frames out."""
