"""What runs in the measuring process: the variants, their check, their times and their memory."""
