"""Models of the body: pose, hands, skin, masks of persons and hair."""
