echo "main $INPUT_NAME"
echo "value=$INPUT_NAME" >> "$GITHUB_OUTPUT"
