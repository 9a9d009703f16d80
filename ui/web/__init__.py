"""The viewer: a Flask application and static ES modules."""
