echo A=of the script >> "$GITHUB_ENV"
echo "$GITHUB_ACTION_PATH/bin" >> "$GITHUB_PATH"
