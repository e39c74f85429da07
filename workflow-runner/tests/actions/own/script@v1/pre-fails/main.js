echo "main"
