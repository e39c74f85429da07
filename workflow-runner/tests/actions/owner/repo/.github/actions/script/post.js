echo "post of the repository"
