"""The commands of the command line, a file each. What is heavy is imported when one runs."""
