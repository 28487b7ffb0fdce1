"""What several test files share: networks, data, references and assertions."""
