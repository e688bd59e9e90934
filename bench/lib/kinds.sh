# Scenarios of other kinds of delivery, for bench/run (bash, sourced): larger
# bodies, TLS, several dispatchers.

scenario bodies "bodies of 200 B, 10 kB and 1 MB, against bare curl multi"
scenario tls "TLS with HTTP/1.1 and, where nghttpd is installed, HTTP/2, against bare curl multi"
scenario tls_options "what scenes ask of TLS, on connections that are kept, and with one for each request"
scenario dispatchers "1, 2 and 4 dispatchers with 16 lanes"

# beside_curl WHAT TASKS IN-FLIGHT BYTES [OPTION...]: rounds of both at the
# receiver as it is; the options are for curl.
beside_curl()
{
	local what=$1 n=$2 in_flight=$3 bytes=$4

	setting "retry.lane_max_in_flight = $in_flight"
	deliver "$n" /ok "$bytes" >/dev/null
	for _ in $(seq "$ROUNDS"); do
		keep requests/s "$what: bare curl multi" "$(bare_curl epoll "$n" "$in_flight" "$RECEIVER/ok" --bytes "$bytes" "${@:5}")"
		keep requests/s "$what: delivered and recorded" "$(deliver "$n" /ok "$bytes")"
	done
	results "$what: bare curl multi" "$what: delivered and recorded"
}

ratio_of()
{
	result "$SCENARIO" "$1: ratio" "$(of_middles "$1: delivered and recorded" "$1: bare curl multi")" "$2" "$3"
}

# Larger bodies are read from the store and written to the socket: both are
# copying, which curl alone does only once.
scenario_bodies()
{
	receiver --count-only
	beside_curl "200 B" "$TASKS" 256 200
	ratio_of "200 B" ">=" 0.7
	beside_curl "10 kB" $((TASKS / 5)) 256 10000
	ratio_of "10 kB" - 0
	beside_curl "1 MB" $((TASKS / 250)) 32 1000000
	ratio_of "1 MB" - 0
}

# A key for 127.0.0.1 that only we trust.
make_certificate()
{
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$WORK/key.pem" -out "$WORK/cert.pem" \
		-days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 2>"$WORK/log/openssl.log" &&
		chmod 600 "$WORK/key.pem"
}

# Starts nghttpd in the place of the receiver, at the port that this had.
nghttpd_receiver()
{
	local port

	receiver --count-only
	port=${RECEIVER##*:}
	kill "$RECEIVER_PID"
	mkdir -p "$WORK/htdocs" && echo '{"ok":true}' >"$WORK/htdocs/ok"
	cp "$(command -v nghttpd)" "$WORK/nghttpd"
	until ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do sleep 0.05; done
	"$WORK/nghttpd" -a 127.0.0.1 -d "$WORK/htdocs" "$port" "$WORK/key.pem" "$WORK/cert.pem" >"$WORK/log/nghttpd.log" 2>&1 </dev/null &
	RECEIVER_PID=$!
	disown "$RECEIVER_PID"
	until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
		kill -0 "$RECEIVER_PID" 2>/dev/null || die "nghttpd does not start: $(tail -n 2 "$WORK/log/nghttpd.log")"
		sleep 0.05
	done
	RECEIVER=https://127.0.0.1:$port
}

scenario_tls()
{
	command -v openssl >/dev/null && make_certificate || { skipped "no certificate without openssl"; return; }
	setting "retry.ca_bundle = '$WORK/cert.pem'"
	receiver --count-only --tls "$WORK/cert.pem" "$WORK/key.pem"
	RECEIVER=${RECEIVER/http:/https:}
	beside_curl "HTTP/1.1" "$TASKS" 256 200 --ca "$WORK/cert.pem"
	ratio_of "HTTP/1.1" ">=" 0.7

	command -v nghttpd >/dev/null || { skipped "HTTP/2: there is no nghttpd (Debian: nghttp2-server)"; return; }
	nghttpd_receiver
	beside_curl "HTTP/2" $((TASKS / 2)) 256 200 --ca "$WORK/cert.pem"
	ratio_of "HTTP/2" ">=" 0.7
}

# What the scenes of tls_options ask for.
TLS_OPTIONS=("nothing of its own" "1.3 at least" "own authority" "pinned key" "client certificate" "all of them")

# Scenes for each of these, at a path of the receiver; they are called NAME-0 and so on.
tls_scenes()
{
	sql -v url="$RECEIVER$2" -v name="$1" -v ca="$(cat "$WORK/cert.pem")" -v pin="$(
		openssl x509 -in "$WORK/cert.pem" -noout -pubkey | openssl pkey -pubin -outform DER | openssl dgst -sha256 -binary | base64)" <<-'SQL'
		INSERT INTO retry.scene (name, url, timeout, tls_min_version, tls_ca, tls_pin, tls_cert)
		SELECT :'name' || '-' || n, :'url', '60 s', CASE WHEN n IN (1, 5) THEN '1.3' ELSE '1.2' END,
			CASE WHEN n IN (2, 5) THEN :'ca' END, CASE WHEN n IN (3, 5) THEN 'sha256//' || :'pin' END,
			CASE WHEN n IN (4, 5) THEN 'me' END
		FROM generate_series(0, 5) n
	SQL
}

# deliver_scene N SCENE: as deliver does to a URL.
deliver_scene()
{
	release "$1" "SELECT count(*) FROM retry.enqueue_many('$2', array(
		SELECT jsonb_build_object('n', n, 'pad', repeat('x', 175)) FROM generate_series(1, $1) n))"
}

# A connection is made for many requests, unless the receiver closes it: then each
# request has the whole price of what its scene asks for.
scenario_tls_options()
{
	local i new=$((TASKS / 20)) pids before

	command -v openssl >/dev/null && make_certificate || { skipped "no certificate without openssl"; return; }
	setting "retry.ca_bundle = '$WORK/cert.pem'"
	setting "retry.lane_max_in_flight = 64"
	receiver --count-only --tls "$WORK/cert.pem" "$WORK/key.pem" --clients-of "$WORK/cert.pem"
	RECEIVER=${RECEIVER/http:/https:}
	sql -v me="$(cat "$WORK/cert.pem" "$WORK/key.pem")" <<<"SELECT retry.set_secret('me', :'me')" >/dev/null
	tls_scenes kept /ok
	tls_scenes new "/header?name=Connection&value=close"
	deliver_scene $((TASKS / 5)) kept-0 >/dev/null
	for _ in $(seq "$ROUNDS"); do
		for i in "${!TLS_OPTIONS[@]}"; do
			keep requests/s "kept: ${TLS_OPTIONS[i]}" "$(deliver_scene $((TASKS / 5)) "kept-$i")"
			mapfile -t pids < <(dispatcher_pids)
			before=$(ticks "${pids[@]}")
			deliver_scene "$new" "new-$i" >/dev/null
			keep "us of CPU" "a connection each: ${TLS_OPTIONS[i]}" \
				"$(awk -v t=$(($(ticks "${pids[@]}") - before)) -v n="$new" 'BEGIN { printf "%.0f", t * 1e4 / n }')"
		done
	done
	results "${TLS_OPTIONS[@]/#/kept: }" "${TLS_OPTIONS[@]/#/a connection each: }"
	for i in "${TLS_OPTIONS[@]:1}"; do
		result tls_options "kept, $i, ratio" "$(of_middles "kept: $i" "kept: ${TLS_OPTIONS[0]}")" - 0
		result tls_options "a connection each, $i, more CPU" "$(of_middles "a connection each: $i" "a connection each: ${TLS_OPTIONS[0]}")" - 0
	done
}

# As many tasks in 16 lanes.
sixteen_lanes()
{
	release "$TASKS" "SELECT count(*) FROM generate_series(1, 16) g, LATERAL retry.enqueue_many('$RECEIVER/ok', array(
		SELECT jsonb_build_object('n', n, 'pad', repeat('x', 175)) FROM generate_series(1, $TASKS / 16) n), lane => 'lane-' || g)"
}

scenario_dispatchers()
{
	local n

	TASKS=$((TASKS / 16 * 16))
	receiver --count-only
	setting "retry.lane_max_in_flight = 256"
	sixteen_lanes >/dev/null
	for _ in $(seq "$ROUNDS"); do
		for n in 1 2 4; do
			setting "retry.dispatchers = $n"
			until [ "$(sql -c "SELECT count(*) FROM retry.dispatchers")" = "$n" ]; do sleep 0.1; done
			sleep 1
			keep tasks/s "dispatchers: $n" "$(sixteen_lanes)"
		done
	done
	results "dispatchers: 1" "dispatchers: 2" "dispatchers: 4"
	result dispatchers "2 against 1, ratio" "$(of_middles "dispatchers: 2" "dispatchers: 1")" ">=" 0.8
	result dispatchers "4 against 1, ratio" "$(of_middles "dispatchers: 4" "dispatchers: 1")" - 0
}
