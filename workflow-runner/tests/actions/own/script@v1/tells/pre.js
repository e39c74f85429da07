echo "pre $INPUT_NAME"
echo "first=$INPUT_NAME" >> "$GITHUB_STATE"
