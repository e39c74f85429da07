echo "::notice::of the post part"
