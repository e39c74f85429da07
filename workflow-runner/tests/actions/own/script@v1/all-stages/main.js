echo "main $INPUT_NAME"
