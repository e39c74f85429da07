echo "::warning file=a.txt,line=3::of the main part"
