echo "main of the repository"
