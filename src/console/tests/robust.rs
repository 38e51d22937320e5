//! No size, no snapshot, no name breaks a picture.
