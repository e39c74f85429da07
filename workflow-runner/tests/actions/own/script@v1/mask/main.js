echo "::add-mask::value-44x"
