"""The architecture: layers, towers, and the network of both. It knows neither files nor Hub."""
