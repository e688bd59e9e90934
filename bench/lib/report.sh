# What bench/run says and keeps (bash, sourced): figures of each round, results
# with their bounds, and a report that shows both, with pictures.
#
# A scenario calls keep for each figure of each round, result for each figure
# that it stands for, and skipped when it cannot run here.

# report_dir DIR: makes it, for the user who measures as well, and prints its
# whole path.
report_dir()
{
	local user

	mkdir -p "$1/data" || return 1
	if [ "$(id -u)" = 0 ]; then
		user=$(server_user)
		chown "$user:" "$1" "$1/data" || return 1
		setpriv --reuid="$user" --regid="$(id -g "$user")" --clear-groups test -w "$1/data" || {
			say "bench/run: user $user cannot write to $1" >&2
			return 1
		}
	fi
	(cd "$1" && pwd -P)
}

# open_report ARGUMENT...: those of the run.
open_report()
{
	RUN_ARGUMENTS=$*
	RUN_STARTED=$(date -u '+%Y-%m-%d %H:%M UTC')
	RUN_LOAD=$(cut -d ' ' -f 1-3 /proc/loadavg)
	REPORT=${REPORT_DIR:-$WORK/report}
	DATA=${REPORT_DIR:+$REPORT_DIR/data}
	[ -z "$DATA" ] || rm -f "$DATA"/*.ms		# some are added to, round by round
	mkdir -p "$REPORT" &&
		echo '"scenario","unit","series","round","value"' >"$REPORT/raw.csv" &&
		echo '"scenario","what","value","operator","bound","verdict"' >"$REPORT/results.csv" &&
		: >"$WORK/raw.tsv" && : >"$WORK/results.tsv"
}

# ---------------------------------------------------------------- figures

# keep UNIT SERIES VALUE: one figure of this scenario; the round is how many the
# series has with this one.  Series of the same unit share a picture.
keep()
{
	local round

	case $3 in
		'' | *[!0-9.e+-]*) die "$SCENARIO: \"$3\" is no figure of $2" ;;
	esac
	round=$(($(figures "$2" | wc -l) + 1))
	printf '%s\t%s\t%s\t%s\t%s\n' "$SCENARIO" "$1" "$2" "$round" "$3" >>"$WORK/raw.tsv"
	printf '"%s","%s","%s",%s,%s\n' "$SCENARIO" "$1" "$2" "$round" "$3" >>"$REPORT/raw.csv"
}

# figures SERIES: those that this scenario has kept, a line each.
figures()
{
	awk -F '\t' -v s="$SCENARIO" -v n="$1" '$1 == s && $3 == n { print $5 }' "$WORK/raw.tsv"
}

# forget: what this scenario has kept so far was only to get going.
forget()
{
	awk -F '\t' -v s="$SCENARIO" '$1 != s' "$WORK/raw.tsv" >"$WORK/raw.tsv.kept" && mv "$WORK/raw.tsv.kept" "$WORK/raw.tsv"
	grep -v "^\"$SCENARIO\"," "$REPORT/raw.csv" >"$WORK/raw.csv.kept"
	cat "$WORK/raw.csv.kept" >"$REPORT/raw.csv"
}

# middle SERIES: the median of what this scenario has kept of it.
middle()
{
	figures "$1" | median
}

median()
{
	sort -g | awk '{ v[NR] = $1 } END { if (NR) print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}

ratio()
{
	awk -v a="$1" -v b="$2" 'BEGIN { printf "%.3f", (b > 0 ? a / b : 0) }'
}

# of_middles A B: the median of series A as a share of that of series B.
of_middles()
{
	ratio "$(middle "$1")" "$(middle "$2")"
}

# result SCENARIO WHAT VALUE OPERATOR BOUND: one figure, and whether it will do;
# OPERATOR is >=, <=, or - where there is no bound.
result()
{
	local verdict=ok counts bound="$4 $5"

	awk -v v="$3" -v o="$4" -v b="$5" 'BEGIN { exit !(o == "-" || (v != "" && (o == ">=" ? v >= b : v <= b))) }' || verdict=BAD
	counts=$verdict
	[ -z "$LENIENT" ] || counts=ok
	[ "$4" != - ] || { bound='' verdict=''; }
	printf '%-13s %-60s %12s  %-10s %s\n' "$1" "$2" "$3" "$bound" "$verdict"
	printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "${bound:--}" "${verdict:--}" "$counts" >>"$WORK/results.tsv"
	printf '"%s","%s",%s,"%s",%s,"%s"\n' "$1" "$2" "$3" "${bound% *}" "${bound#* }" "$verdict" >>"$REPORT/results.csv"
}

# results SERIES...: their medians, without a bound.
results()
{
	local series unit

	for series; do
		unit=$(awk -F '\t' -v s="$SCENARIO" -v n="$series" '$1 == s && $3 == n { print $2; exit }' "$WORK/raw.tsv")
		result "$SCENARIO" "$series, $unit" "$(middle "$series")" - 0
	done
}

# skipped WHY: this scenario, or a part of it, cannot run here; that is no failure.
skipped()
{
	printf '%-13s skipped: %s\n' "$SCENARIO" "$1"
	printf '%s\tskipped: %s\t\t-\t-\t-\n' "$SCENARIO" "$1" >>"$WORK/results.tsv"
}

broke_off()
{
	printf '%-13s broke off\n' "$SCENARIO"
	printf '%s\tbroke off\t\t-\tBAD\tBAD\n' "$SCENARIO" >>"$WORK/results.tsv"
}

# count_verdicts VERDICT: as they count, which with --lenient is not as they are.
count_verdicts()
{
	cut -f 6 "$WORK/results.tsv" | grep -cx "$1"
}

# ---------------------------------------------------------------- the report

# The machine and the versions, without which no figure means anything.
machine()
{
	cat <<-MACHINE
		- \`bench/run $(sed 's/--report-dir [^ ]*/--report-dir DIR/' <<<"$RUN_ARGUMENTS")\`, begun $RUN_STARTED with a load of $RUN_LOAD
		- $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores, $(awk '/MemTotal/ { printf "%.0f GB", $2 / 1048576 }' /proc/meminfo), Linux $(uname -r)
		- $("$PG_CONFIG" --version), $(curl-config --version 2>/dev/null || echo "libcurl of unknown version"), $(gcc --version | head -n 1)
		- \`synchronous_commit = on\`, \`fsync = on\`, 1 GB of shared buffers, WAL recycled before measuring
	MACHINE
}

# close_report: writes report.md and its pictures.
close_report()
{
	local name unit slug

	[ -n "$REPORT_DIR" ] || return 0
	{
		echo "# What was measured"
		echo
		machine
		echo
		echo "Medians of the rounds; each round is in [raw.csv](raw.csv)."
		cut -f 1 "$WORK/results.tsv" | awk '!seen[$0]++' | while read -r name; do
			printf '\n## %s\n\n| what | value | bound | |\n|---|---:|---|---|\n' "$name"
			awk -F '\t' -v n="$name" '$1 == n { print "| " $2 " | " $3 " | " ($4 == "-" ? "" : $4) " | " ($5 == "-" ? "" : $5) " |" }' \
				"$WORK/results.tsv"
			awk -F '\t' -v n="$name" '$1 == n && !seen[$2]++ { print $2 }' "$WORK/raw.tsv" | while read -r unit; do
				slug=$(tr -cs 'a-z0-9' '-' <<<"$name $unit")
				slug=${slug%-}
				picture "$name" "$unit" >"$REPORT/$slug.svg" || { rm -f "$REPORT/$slug.svg"; continue; }
				printf '\n![%s, %s](%s.svg)\n' "$name" "$unit" "$slug"
			done
			curves "$name" >"$REPORT/$name-percentiles.svg" || { rm -f "$REPORT/$name-percentiles.svg"; continue; }
			printf '\n![%s, percentiles](%s-percentiles.svg)\n' "$name" "$name"
		done
		command -v gnuplot >/dev/null || printf '\nNo pictures: there is no gnuplot here.\n'
	} >"$REPORT/report.md"
	say "report: $REPORT/report.md"
}

# picture SCENARIO UNIT: a bar for the median of each series, and how far the
# rounds went; prints an SVG.  Fails where there is nothing to compare.
picture()
{
	local bars=$WORK/bars n

	awk -F '\t' -v s="$1" -v u="$2" '$1 == s && $2 == u { if (!seen[$3]++) print $3 }' "$WORK/raw.tsv" |
		while read -r series; do
			SCENARIO=$1 figures "$series" | sort -g | awk -v n="$series" '
				{ v[NR] = $1 }
				END { m = NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2; print m "\t" v[1] "\t" v[NR] "\t" n }'
		done | awk '{ print NR - 1 "\t" $0 }' >"$bars"
	n=$(wc -l <"$bars")
	[ "$n" -gt 1 ] && command -v gnuplot >/dev/null || return 1
	gnuplot 2>>"$WORK/log/gnuplot.log" <<-GNUPLOT
		set terminal svg size 860,$((70 + 34 * n)) dynamic font "sans-serif,13" background "white"
		set datafile separator "\\t"
		set title "$1, $2: medians, and the rounds' least and most" noenhanced
		set key off
		set border 3
		set tics nomirror out
		set grid xtics lc rgb "#dddddd"
		set style fill solid 1 noborder
		set yrange [$n - 0.4:-0.6]
		set xrange [0:*]
		set format x "%.6g"
		set lmargin $(awk -F '\t' '{ l = length($5); if (l > m) m = l } END { print int(m * 0.95) + 3 }' "$bars")
		set rmargin 12
		plot "$bars" using 2:1:(0):2:(\$1 - 0.3):(\$1 + 0.3):ytic(5) with boxxyerror lc rgb "#6fa3d8", \\
			"" using 2:1:3:4 with xerrorbars pt 0 lc rgb "#333333", \\
			"" using 4:1:(sprintf("  %.6g", \$2)) with labels left noenhanced
	GNUPLOT
}

# curves SCENARIO: milliseconds by percentile, a line for each file of data/ that
# belongs to it; prints an SVG.  Fails where there are none.
curves()
{
	local file lines='' name

	command -v gnuplot >/dev/null || return 1
	for file in "$DATA/$1"-*.ms; do
		[ -s "$file" ] || return 1
		name=$(basename "$file" .ms)
		# What arrived before its commit was known to the client counts as at once.
		sort -g "$file" | awk '{ v[NR] = $1 } END { for (i = 1; i < NR; i++) print -log(1 - i / NR) / log(10) "\t" (v[i] < 0.01 ? 0.01 : v[i]) }' \
			>"$WORK/$name.curve"
		lines+="${lines:+, }\"$WORK/$name.curve\" using 1:2 with lines lw 2 title \"${name#"$1"-}\" noenhanced"
	done
	gnuplot 2>>"$WORK/log/gnuplot.log" <<-GNUPLOT
		set terminal svg size 860,380 dynamic font "sans-serif,13" background "white"
		set title "$1: milliseconds by percentile" noenhanced
		set key top left
		set border 3
		set tics nomirror out
		set grid lc rgb "#dddddd"
		set logscale y
		set xrange [0:4]
		set xtics ("p50" 0.301, "p90" 1, "p99" 2, "p99.9" 3, "p99.99" 4)
		plot $lines
	GNUPLOT
}
