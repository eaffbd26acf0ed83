"""The page to play with: look before an edit, paint its mask, edit. Only `page`, `parts`, `touched` know Gradio."""
