echo "pre $INPUT_NAME"
