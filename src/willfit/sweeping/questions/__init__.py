"""What each kind of question asks at the points of a grid, through the same functions as its command."""
