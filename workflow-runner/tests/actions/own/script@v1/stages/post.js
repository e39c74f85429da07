echo "post $INPUT_NAME"
