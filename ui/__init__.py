"""What people touch: configuration, commands, pages."""
