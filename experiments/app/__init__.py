"""The page to play with: look before an edit, paint its mask, edit. Only `page` and `touched` know Gradio."""
