"""The benchmark's peer methods, one file each, in our own code from their maths, on the same frozen backbone."""
