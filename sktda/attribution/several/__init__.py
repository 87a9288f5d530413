"""Several methods, several models or several trainings as one."""
