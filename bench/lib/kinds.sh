# Scenarios of other kinds of delivery, for bench/run (bash, sourced): larger
# bodies, TLS, several dispatchers.

scenario bodies "bodies of 200 B, 10 kB and 1 MB, against bare curl multi"
scenario tls "TLS with HTTP/1.1 and, where nghttpd is installed, HTTP/2, against bare curl multi"
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
