echo work
