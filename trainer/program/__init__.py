"""Program descriptions, state layouts and size estimates."""
