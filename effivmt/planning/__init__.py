"""What a run will take, before it starts: memory, disk, FLOPs and time of every stage, and what makes it fit a GPU."""
