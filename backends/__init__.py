"""Models, by subject: a role's Protocol and the implementations that fill it."""
