# Draws soak.tsv of `folder`, a picture for each kind of figure.
set terminal svg size 900,420 dynamic background rgb 'white'
set datafile separator "\t"
set datafile missing 'nan'
set key outside right noenhanced
set xlabel 'minutes'
set yrange [0:*]
set grid
file = folder.'/soak.tsv'
names = system("head -n 1 ".file." | tr '\\t ' '\\n_'")
kinds = "memory files size wal latency"
units = "kB files kB bytes ms"
do for [k = 1:words(kinds)] {
	kind = word(kinds, k)
	set output folder.'/'.kind.'.svg'
	set ylabel word(units, k)
	set title kind
	columns = ''
	do for [n = 2:words(names)] {
		if (strstrt(word(names, n), kind) == 1) { columns = columns.' '.n }
	}
	if (words(columns) > 0) {
		plot for [c in columns] file using ($1 / 60):(column(int(c))) with lines title word(names, int(c)) noenhanced
	}
}
