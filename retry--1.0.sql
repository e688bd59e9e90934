/* retry--1.0.sql: the SQL surface of retry, in the order a manual would have */

\echo Use "CREATE EXTENSION retry" to load this file. \quit

/*
 * Contents
 *	1. Types
 *	2. Configuration: groups, scenes, lane overrides
 *	3. The store: facts in a ring of leaves
 *	4. The store: what stands beside the ring
 *	5. Enqueue
 *	6. Administer
 *	7. Views
 *	8. Rights
 */

COMMENT ON SCHEMA retry IS
'HTTP calls that are made, and made again, until they have an outcome: start at retry.enqueue() and the view retry.tasks';

/*
 * 1. Types
 */

CREATE TYPE retry.task_state AS ENUM
	('pending', 'running', 'retrying', 'succeeded', 'dead', 'cancelled');
COMMENT ON TYPE retry.task_state IS
'State of a task, computed from its facts: pending (no attempt yet), running (an attempt is under way), retrying (another attempt is due), succeeded, dead (it has a dead letter), cancelled';

CREATE TYPE retry.outcome AS ENUM
	('succeeded', 'failed', 'processing', 'stopped', 'expired', 'blocked', 'error');
COMMENT ON TYPE retry.outcome IS
'Outcome of one attempt: succeeded; failed (may be tried again); processing (the receiver asked to be asked later); stopped (never to be tried again); expired (no time left, nothing was sent); blocked (the address is not allowed, nothing was sent); error (the attempt could not be made or recorded properly)';

CREATE TYPE retry.dead_reason AS ENUM
	('exhausted', 'expired', 'stopped', 'gone', 'blocked', 'quarantined', 'rejected');
COMMENT ON TYPE retry.dead_reason IS
'Why a task is dead: exhausted (no attempts left), expired (no time left), stopped (the answer forbids another attempt), gone (410), blocked (address not allowed), quarantined (it brought the worker down), rejected (by a rule of its scene)';

/*
 * Type backoff: how long to wait between the attempts of a task.
 *
 * Input, output and comparison depend on nothing but their arguments, hence
 * IMMUTABLE.  preview() is only STABLE: a cron form in a time zone changes
 * with the server's time zone data, which an operating system update may
 * replace.
 */
CREATE TYPE retry.backoff;

CREATE FUNCTION retry.backoff_in(cstring) RETURNS retry.backoff
AS 'MODULE_PATHNAME', 'retry_backoff_in'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION retry.backoff_in(cstring) IS 'reads the text form of a backoff';

CREATE FUNCTION retry.backoff_out(retry.backoff) RETURNS cstring
AS 'MODULE_PATHNAME', 'retry_backoff_out'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION retry.backoff_out(retry.backoff) IS 'writes the canonical text form of a backoff';

CREATE FUNCTION retry.backoff_recv(internal) RETURNS retry.backoff
AS 'MODULE_PATHNAME', 'retry_backoff_recv'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION retry.backoff_recv(internal) IS 'reads the binary form of a backoff: a version byte (1), then its text form';

CREATE FUNCTION retry.backoff_send(retry.backoff) RETURNS bytea
AS 'MODULE_PATHNAME', 'retry_backoff_send'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION retry.backoff_send(retry.backoff) IS 'writes the binary form of a backoff: a version byte (1), then its canonical text form';

CREATE TYPE retry.backoff (
	INPUT = retry.backoff_in,
	OUTPUT = retry.backoff_out,
	RECEIVE = retry.backoff_recv,
	SEND = retry.backoff_send,
	INTERNALLENGTH = VARIABLE,
	ALIGNMENT = double,
	STORAGE = plain
);
COMMENT ON TYPE retry.backoff IS 'How long to wait after each attempt: fixed, linear, exponential, levels, random or cron, each with an optional jitter';

CREATE FUNCTION retry.backoff_eq(retry.backoff, retry.backoff) RETURNS boolean
AS 'MODULE_PATHNAME', 'retry_backoff_eq'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION retry.backoff_eq(retry.backoff, retry.backoff) IS 'implementation of = operator';

CREATE FUNCTION retry.backoff_ne(retry.backoff, retry.backoff) RETURNS boolean
AS 'MODULE_PATHNAME', 'retry_backoff_ne'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION retry.backoff_ne(retry.backoff, retry.backoff) IS 'implementation of <> operator';

CREATE FUNCTION retry.backoff_hash(retry.backoff) RETURNS integer
AS 'MODULE_PATHNAME', 'retry_backoff_hash'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION retry.backoff_hash(retry.backoff) IS 'hash';

CREATE FUNCTION retry.backoff_hash_extended(retry.backoff, bigint) RETURNS bigint
AS 'MODULE_PATHNAME', 'retry_backoff_hash_extended'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION retry.backoff_hash_extended(retry.backoff, bigint) IS 'hash with a seed';

CREATE OPERATOR retry.= (
	FUNCTION = retry.backoff_eq,
	LEFTARG = retry.backoff,
	RIGHTARG = retry.backoff,
	COMMUTATOR = OPERATOR(retry.=),
	NEGATOR = OPERATOR(retry.<>),
	RESTRICT = eqsel,
	JOIN = eqjoinsel,
	HASHES
);
COMMENT ON OPERATOR retry.= (retry.backoff, retry.backoff) IS 'the same backoff';

CREATE OPERATOR retry.<> (
	FUNCTION = retry.backoff_ne,
	LEFTARG = retry.backoff,
	RIGHTARG = retry.backoff,
	COMMUTATOR = OPERATOR(retry.<>),
	NEGATOR = OPERATOR(retry.=),
	RESTRICT = neqsel,
	JOIN = neqjoinsel
);
COMMENT ON OPERATOR retry.<> (retry.backoff, retry.backoff) IS 'another backoff';

CREATE OPERATOR CLASS retry.backoff_ops
DEFAULT FOR TYPE retry.backoff USING hash AS
	OPERATOR 1 retry.= (retry.backoff, retry.backoff),
	FUNCTION 1 retry.backoff_hash(retry.backoff),
	FUNCTION 2 retry.backoff_hash_extended(retry.backoff, bigint);
COMMENT ON OPERATOR CLASS retry.backoff_ops USING hash IS 'equality of backoffs: DISTINCT, GROUP BY, hash joins';

CREATE FUNCTION retry.preview(
	backoff retry.backoff,
	attempts integer DEFAULT 16,
	start timestamptz DEFAULT now(),
	OUT attempt_no integer,
	OUT at timestamptz,
	OUT earliest timestamptz,
	OUT latest timestamptz
) RETURNS SETOF record
AS 'MODULE_PATHNAME', 'retry_backoff_preview'
LANGUAGE C STABLE STRICT PARALLEL SAFE
ROWS 16;
COMMENT ON FUNCTION retry.preview(retry.backoff, integer, timestamptz) IS 'When the attempts of a task would be made: without jitter (at), and the bounds that jitter leaves; attempts are taken to last no time';

/*
 * Type rate: how many requests in a time may be made.  Pure like backoff.
 */
CREATE TYPE retry.rate;

CREATE FUNCTION retry.rate_in(cstring) RETURNS retry.rate
AS 'MODULE_PATHNAME', 'retry_rate_in'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION retry.rate_in(cstring) IS 'reads the text form of a rate';

CREATE FUNCTION retry.rate_out(retry.rate) RETURNS cstring
AS 'MODULE_PATHNAME', 'retry_rate_out'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION retry.rate_out(retry.rate) IS 'writes the canonical text form of a rate';

CREATE FUNCTION retry.rate_recv(internal) RETURNS retry.rate
AS 'MODULE_PATHNAME', 'retry_rate_recv'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION retry.rate_recv(internal) IS 'reads the binary form of a rate: a version byte (1), then its text form';

CREATE FUNCTION retry.rate_send(retry.rate) RETURNS bytea
AS 'MODULE_PATHNAME', 'retry_rate_send'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION retry.rate_send(retry.rate) IS 'writes the binary form of a rate: a version byte (1), then its canonical text form';

CREATE TYPE retry.rate (
	INPUT = retry.rate_in,
	OUTPUT = retry.rate_out,
	RECEIVE = retry.rate_recv,
	SEND = retry.rate_send,
	INTERNALLENGTH = 12,
	ALIGNMENT = int4
);
COMMENT ON TYPE retry.rate IS 'How many requests in a time: 100/s, 5000/m burst 200, 10/h, 1000/d';

CREATE FUNCTION retry.rate_eq(retry.rate, retry.rate) RETURNS boolean
AS 'MODULE_PATHNAME', 'retry_rate_eq'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION retry.rate_eq(retry.rate, retry.rate) IS 'implementation of = operator';

CREATE FUNCTION retry.rate_ne(retry.rate, retry.rate) RETURNS boolean
AS 'MODULE_PATHNAME', 'retry_rate_ne'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION retry.rate_ne(retry.rate, retry.rate) IS 'implementation of <> operator';

CREATE FUNCTION retry.rate_hash(retry.rate) RETURNS integer
AS 'MODULE_PATHNAME', 'retry_rate_hash'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION retry.rate_hash(retry.rate) IS 'hash';

CREATE FUNCTION retry.rate_hash_extended(retry.rate, bigint) RETURNS bigint
AS 'MODULE_PATHNAME', 'retry_rate_hash_extended'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION retry.rate_hash_extended(retry.rate, bigint) IS 'hash with a seed';

CREATE OPERATOR retry.= (
	FUNCTION = retry.rate_eq,
	LEFTARG = retry.rate,
	RIGHTARG = retry.rate,
	COMMUTATOR = OPERATOR(retry.=),
	NEGATOR = OPERATOR(retry.<>),
	RESTRICT = eqsel,
	JOIN = eqjoinsel,
	HASHES
);
COMMENT ON OPERATOR retry.= (retry.rate, retry.rate) IS 'the same rate';

CREATE OPERATOR retry.<> (
	FUNCTION = retry.rate_ne,
	LEFTARG = retry.rate,
	RIGHTARG = retry.rate,
	COMMUTATOR = OPERATOR(retry.<>),
	NEGATOR = OPERATOR(retry.=),
	RESTRICT = neqsel,
	JOIN = neqjoinsel
);
COMMENT ON OPERATOR retry.<> (retry.rate, retry.rate) IS 'another rate';

CREATE OPERATOR CLASS retry.rate_ops
DEFAULT FOR TYPE retry.rate USING hash AS
	OPERATOR 1 retry.= (retry.rate, retry.rate),
	FUNCTION 1 retry.rate_hash(retry.rate),
	FUNCTION 2 retry.rate_hash_extended(retry.rate, bigint);
COMMENT ON OPERATOR CLASS retry.rate_ops USING hash IS 'equality of rates: DISTINCT, GROUP BY, hash joins';

/*
 * Helpers that constraints, indexes and views use.  They read nothing but
 * their arguments (my_scenes excepted), and report a bad value as an ERROR of
 * their own, which says more than a violated constraint would.
 */
CREATE FUNCTION retry.check_url(url text) RETURNS boolean
LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'retry_check_url';
COMMENT ON FUNCTION retry.check_url(text) IS
'True for an absolute http or https URL that can be called, for sql:schema.function, and for null; an ERROR that says why for any other';

CREATE FUNCTION retry.check_headers(headers jsonb) RETURNS boolean
LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'retry_check_headers';
COMMENT ON FUNCTION retry.check_headers(jsonb) IS
'True for an object of header names and string values that may be sent, and for null; an ERROR that says why for any other';

CREATE FUNCTION retry.secret_names(headers jsonb) RETURNS text[]
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'retry_secret_names';
COMMENT ON FUNCTION retry.secret_names(jsonb) IS 'Names of the secrets that headers of a scene refer to as {{secret:name}}';

CREATE FUNCTION retry.check_certificates(pem text) RETURNS boolean
LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'retry_check_certificates';
COMMENT ON FUNCTION retry.check_certificates(text) IS
'True for certificates in PEM form without a private key, and for null; an ERROR that says why for any other';

CREATE FUNCTION retry.check_status_list(list text, column_name text DEFAULT NULL) RETURNS boolean
LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'retry_check_status_list';
COMMENT ON FUNCTION retry.check_status_list(text, text) IS
'True for a list of statuses and ranges of them such as 200-299,409, and for null; an ERROR that says why for any other';

CREATE FUNCTION retry.check_error_classes(list text, column_name text DEFAULT NULL) RETURNS boolean
LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'retry_check_error_classes';
COMMENT ON FUNCTION retry.check_error_classes(text, text) IS
'True for a list of classes of errors and SQLSTATEs such as tls,dns, and for null; an ERROR that says why for any other';

CREATE FUNCTION retry.check_condition(path jsonpath, column_name text DEFAULT NULL) RETURNS boolean
LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'retry_check_condition';
COMMENT ON FUNCTION retry.check_condition(jsonpath, text) IS
'True for a path that can be evaluated over an answer, which one with variables cannot, and for null; an ERROR that says why for any other';

CREATE FUNCTION retry.check_targets(targets text[]) RETURNS boolean
LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'retry_check_targets';
COMMENT ON FUNCTION retry.check_targets(text[]) IS
'True for an array of targets, each ''URL'' or ''URL weight=N'', and for null; an ERROR that says why for any other';

CREATE FUNCTION retry.check_hosts(hosts text[]) RETURNS boolean
LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'retry_check_hosts';
COMMENT ON FUNCTION retry.check_hosts(text[]) IS
'True for an array of hosts, each a host, *.domain or *, with a port or without, and for null; an ERROR that says why for any other';

CREATE FUNCTION retry.check_conninfo(conninfo text) RETURNS boolean
LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'retry_check_conninfo';
COMMENT ON FUNCTION retry.check_conninfo(text) IS
'True for a connection string of libpq that names host, dbname and user and no password, and for null; an ERROR that says why for any other';

CREATE FUNCTION retry.origin(url text) RETURNS text
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'retry_origin';
COMMENT ON FUNCTION retry.origin(text) IS
'Scheme, host and port of a URL, normalized, or the function sql:schema.function: the name of its default lane';

CREATE FUNCTION retry.canonical_url(url text) RETURNS text
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'retry_canonical_url_sql';
COMMENT ON FUNCTION retry.canonical_url(text) IS
'The one spelling of a URL by which retry.disabled_urls knows it: scheme and host in lower case, no default port, no fragment; null for what is no http or https URL';

CREATE FUNCTION retry.task_time(id uuid) RETURNS timestamptz
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'retry_task_time';
COMMENT ON FUNCTION retry.task_time(uuid) IS
'The moment a task was enqueued, which its id (UUIDv7) carries; null for an id of another kind';

CREATE FUNCTION retry.my_scenes(own_only boolean) RETURNS SETOF int
LANGUAGE C STABLE STRICT PARALLEL SAFE ROWS 100 AS 'MODULE_PATHNAME', 'retry_my_scenes';
COMMENT ON FUNCTION retry.my_scenes(boolean) IS
'Ids of the scenes whose tasks the current role may see: false, all tasks; true, those of the shared group default where it sees only tasks of roles it is a member of';

CREATE FUNCTION retry.my_groups() RETURNS SETOF int
LANGUAGE C STABLE STRICT PARALLEL SAFE ROWS 10 AS 'MODULE_PATHNAME', 'retry_my_groups';
COMMENT ON FUNCTION retry.my_groups() IS
'Ids of the groups whose lanes and events the current role may see: its own and those granted to it; the shared group default only for its owner; all for members of pg_monitor';

/*
 * 2. Configuration: groups, scenes, lane overrides
 *
 * Ordinary tables, edited with INSERT, UPDATE and DELETE.  A change counts
 * from its commit on, for the next attempt of every task.
 */

CREATE TABLE retry.scene_group
(
	id			int GENERATED BY DEFAULT AS IDENTITY UNIQUE,
	name		text PRIMARY KEY
				CONSTRAINT scene_group_name_valid CHECK (name ~ '^[a-z0-9_-]{1,63}$'),
	owner		regrole NOT NULL DEFAULT quote_ident(current_user)::regrole,
	paused		boolean NOT NULL DEFAULT false,
	resume_over	interval
				CONSTRAINT scene_group_resume_over_valid CHECK (resume_over BETWEEN '0' AND '30 days'),
	resumed_at	timestamptz,
	order_ended_at	timestamptz,
	allowed_hosts	text[]
				CONSTRAINT scene_group_allowed_hosts_valid CHECK (retry.check_hosts(allowed_hosts)),
	https_only	boolean NOT NULL DEFAULT false,
	max_pending	bigint
				CONSTRAINT scene_group_max_pending_valid CHECK (max_pending >= 0),
	max_lanes	int
				CONSTRAINT scene_group_max_lanes_valid CHECK (max_lanes >= 0),
	max_enqueue_rate	retry.rate,
	max_body_size	int
				CONSTRAINT scene_group_max_body_size_valid CHECK (max_body_size >= 0),
	max_headers		int
				CONSTRAINT scene_group_max_headers_valid CHECK (max_headers >= 0),
	max_headers_size	int
				CONSTRAINT scene_group_max_headers_size_valid CHECK (max_headers_size >= 0),
	description	text,
	created_at	timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE retry.scene_group IS
'An application: who owns its scenes and tasks, and a switch that pauses them all';
COMMENT ON COLUMN retry.scene_group.id IS 'Number by which scenes and lanes know the group';
COMMENT ON COLUMN retry.scene_group.name IS 'Name, as in the target group/scene: lower-case letters, digits, _ and -';
COMMENT ON COLUMN retry.scene_group.owner IS 'Role whose members see and administer the group''s tasks and may enqueue into it';
COMMENT ON COLUMN retry.scene_group.paused IS 'While true nothing of the group is sent; nothing is lost';
COMMENT ON COLUMN retry.scene_group.resume_over IS 'When the group is resumed, what has become due meanwhile is spread over this time; null: all at once';
COMMENT ON COLUMN retry.scene_group.resumed_at IS 'When the group was last resumed with resume_over set; the server sets it';
COMMENT ON COLUMN retry.scene_group.order_ended_at IS 'When a lane of the group last ceased to be ordered by its override; the server sets it';
COMMENT ON COLUMN retry.scene_group.allowed_hosts IS 'Hosts that the group''s requests may go to: host, *.domain or *, with :port, :* for any, or the port of the scheme; null: any host';
COMMENT ON COLUMN retry.scene_group.https_only IS 'Refuses http URLs, as retry.https_only does for all groups';
COMMENT ON COLUMN retry.scene_group.max_pending IS 'Most tasks without an outcome; who would store more gets an error. Null: no limit. As all limits, set by the extension''s owner and superusers only';
COMMENT ON COLUMN retry.scene_group.max_lanes IS 'Most lanes that tasks without an outcome are in; who would store one in another lane gets an error. Null: no limit';
COMMENT ON COLUMN retry.scene_group.max_enqueue_rate IS 'How fast tasks may be enqueued; at once, the burst or what a second brings. Null: no limit';
COMMENT ON COLUMN retry.scene_group.max_body_size IS 'Largest body of a task, in bytes; null: as retry.max_request_bytes says';
COMMENT ON COLUMN retry.scene_group.max_headers IS 'Most headers that a task may have of its own, and a scene; null: no limit';
COMMENT ON COLUMN retry.scene_group.max_headers_size IS 'Most bytes of names and values of these headers together; null: 32 kB, as for all';
COMMENT ON COLUMN retry.scene_group.description IS 'For people';
COMMENT ON COLUMN retry.scene_group.created_at IS 'When the group was created';

CREATE TABLE retry.group_member
(
	group_id	int NOT NULL REFERENCES retry.scene_group (id) ON DELETE CASCADE,
	role		regrole NOT NULL,
	granted_by	regrole NOT NULL DEFAULT quote_ident(session_user)::regrole,
	granted_at	timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (group_id, role)
);
COMMENT ON TABLE retry.group_member IS
'Roles that were given a group with retry.grant(), besides the members of its owner';
COMMENT ON COLUMN retry.group_member.group_id IS 'The group';
COMMENT ON COLUMN retry.group_member.role IS 'The role; its members may use the group too';
COMMENT ON COLUMN retry.group_member.granted_by IS 'Who gave it';
COMMENT ON COLUMN retry.group_member.granted_at IS 'When';

CREATE TABLE retry.scene
(
	id				int GENERATED BY DEFAULT AS IDENTITY UNIQUE,
	group_name		text NOT NULL DEFAULT 'default'
					REFERENCES retry.scene_group (name) ON UPDATE CASCADE,
	name			text NOT NULL
					CONSTRAINT scene_name_valid CHECK (name ~ '^[a-z0-9_-]{1,63}$'),
	url				text
					CONSTRAINT scene_url_valid CHECK (retry.check_url(url)),
	targets			text[]
					CONSTRAINT scene_targets_valid CHECK (retry.check_targets(targets)),
	route			text NOT NULL DEFAULT 'hash'
					CONSTRAINT scene_route_valid CHECK (route IN ('hash', 'random', 'round_robin', 'least_in_flight', 'lru', 'first', 'last', 'all')),
	method			text NOT NULL DEFAULT 'POST'
					CONSTRAINT scene_method_valid CHECK (method ~ '^[A-Z][A-Z-]{0,31}$'),
	headers			jsonb
					CONSTRAINT scene_headers_valid CHECK (retry.check_headers(headers)),
	timeout			interval NOT NULL DEFAULT '15 s'
					CONSTRAINT scene_timeout_valid CHECK (timeout BETWEEN '1 ms' AND '1 h'),
	connect_timeout	interval NOT NULL DEFAULT '5 s'
					CONSTRAINT scene_connect_timeout_valid CHECK (connect_timeout BETWEEN '1 ms' AND '1 h'),
	backoff			retry.backoff NOT NULL DEFAULT 'exponential 1s factor 2 max 1h jitter full',
	max_attempts	int NOT NULL DEFAULT 16
					CONSTRAINT scene_max_attempts_valid CHECK (max_attempts BETWEEN 1 AND 1000000),
	expires_after	interval
					CONSTRAINT scene_expires_after_valid CHECK (expires_after > '0'),
	time_budget		interval
					CONSTRAINT scene_time_budget_valid CHECK (time_budget > '0' AND time_budget <= '100000 years'),
	success_status	text NOT NULL DEFAULT '200-299'
					CONSTRAINT scene_success_status_valid CHECK (retry.check_status_list(success_status, 'success_status')),
	stop_status		text NOT NULL DEFAULT '400,405,406,410,411,413-415,422,431,451,501,505'
					CONSTRAINT scene_stop_status_valid CHECK (retry.check_status_list(stop_status, 'stop_status')),
	stop_errors		text
					CONSTRAINT scene_stop_errors_valid CHECK (retry.check_error_classes(stop_errors, 'stop_errors')),
	success_when	jsonpath
					CONSTRAINT scene_success_when_valid CHECK (retry.check_condition(success_when, 'success_when')),
	pending_when	jsonpath
					CONSTRAINT scene_pending_when_valid CHECK (retry.check_condition(pending_when, 'pending_when')),
	stop_when		jsonpath
					CONSTRAINT scene_stop_when_valid CHECK (retry.check_condition(stop_when, 'stop_when')),
	pending_interval interval NOT NULL DEFAULT '1 min'
					CONSTRAINT scene_pending_interval_valid CHECK (pending_interval BETWEEN '1 ms' AND '30 days'),
	pending_limit	int DEFAULT 1440
					CONSTRAINT scene_pending_limit_valid CHECK (pending_limit BETWEEN 1 AND 1000000),
	on_success		text,
	on_dead			text,
	notify			text
					CONSTRAINT scene_notify_valid CHECK (octet_length(notify) BETWEEN 1 AND 63),
	check_target	text,
	check_after		interval NOT NULL DEFAULT '6 s'
					CONSTRAINT scene_check_after_valid CHECK (check_after BETWEEN '0' AND '30 days'),
	check_every		interval NOT NULL DEFAULT '30 s'
					CONSTRAINT scene_check_every_valid CHECK (check_every BETWEEN '1 ms' AND '30 days'),
	check_limit		int NOT NULL DEFAULT 15
					CONSTRAINT scene_check_limit_valid CHECK (check_limit BETWEEN 1 AND 10000),
	undecided		text NOT NULL DEFAULT 'rollback'
					CONSTRAINT scene_undecided_valid CHECK (undecided IN ('commit', 'rollback')),
	generate_key	boolean NOT NULL DEFAULT false,
	key_window		interval
					CONSTRAINT scene_key_window_valid CHECK (key_window BETWEEN '0' AND '30 days'),
	lane_by			text
					CONSTRAINT scene_lane_by_valid CHECK (lane_by IN ('origin', 'scene', 'key', 'reference')),
	rate			retry.rate,
	max_in_flight	int
					CONSTRAINT scene_max_in_flight_valid CHECK (max_in_flight BETWEEN 1 AND 10000),
	ordered			boolean NOT NULL DEFAULT false,
	dead_head		text NOT NULL DEFAULT 'skip'
					CONSTRAINT scene_dead_head_valid CHECK (dead_head IN ('skip', 'block')),
	priority		text NOT NULL DEFAULT 'normal'
					CONSTRAINT scene_priority_valid CHECK (priority IN ('normal', 'high')),
	weight			int NOT NULL DEFAULT 1
					CONSTRAINT scene_weight_valid CHECK (weight BETWEEN 1 AND 100),
	adaptive		boolean NOT NULL DEFAULT false,
	hedge			boolean NOT NULL DEFAULT false,
	breaker_ratio	real DEFAULT 0.5
					CONSTRAINT scene_breaker_ratio_valid CHECK (breaker_ratio > 0 AND breaker_ratio <= 1),
	breaker_calls	int NOT NULL DEFAULT 20
					CONSTRAINT scene_breaker_calls_valid CHECK (breaker_calls BETWEEN 1 AND 10000),
	breaker_window	interval NOT NULL DEFAULT '30 s'
					CONSTRAINT scene_breaker_window_valid CHECK (breaker_window BETWEEN '1 s' AND '1 h'),
	breaker_open	interval NOT NULL DEFAULT '5 s'
					CONSTRAINT scene_breaker_open_valid CHECK (breaker_open BETWEEN '1 ms' AND '1 h'),
	retry_share		real DEFAULT 0.2
					CONSTRAINT scene_retry_share_valid CHECK (retry_share >= 0 AND retry_share <= 100),
	retry_floor		int NOT NULL DEFAULT 10
					CONSTRAINT scene_retry_floor_valid CHECK (retry_floor BETWEEN 1 AND 100000),
	secret			text
					CONSTRAINT scene_secret_valid CHECK (secret ~ '^[a-z0-9_-]{1,63}$'),
	secret_use		text NOT NULL DEFAULT 'webhook'
					CONSTRAINT scene_secret_use_valid CHECK (secret_use IN ('webhook', 'dingtalk', 'feishu', 'pagerduty', 'email')),
	mail			jsonb,
	tls_verify		boolean NOT NULL DEFAULT true,
	tls_unverified_by text,
	tls_min_version	text NOT NULL DEFAULT '1.2'
					CONSTRAINT scene_tls_min_version_valid CHECK (tls_min_version IN ('1.2', '1.3')),
	tls_ca			text
					CONSTRAINT scene_tls_ca_valid CHECK (retry.check_certificates(tls_ca)),
	tls_pin			text
					CONSTRAINT scene_tls_pin_valid CHECK (tls_pin ~ '^sha256//[A-Za-z0-9+/]{43}=(;sha256//[A-Za-z0-9+/]{43}=){0,15}$'),
	tls_cert		text
					CONSTRAINT scene_tls_cert_valid CHECK (tls_cert ~ '^[a-z0-9_-]{1,63}$'),
	paused			boolean NOT NULL DEFAULT false,
	resume_over		interval
					CONSTRAINT scene_resume_over_valid CHECK (resume_over BETWEEN '0' AND '30 days'),
	resumed_at		timestamptz,
	order_ended_at	timestamptz,
	archived		boolean NOT NULL DEFAULT false,
	deleted_at		timestamptz,
	description		text,
	created_at		timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (group_name, name),
	CONSTRAINT scene_url_or_targets CHECK (url IS NULL OR targets IS NULL),
	CONSTRAINT scene_route_all_has_targets CHECK (route <> 'all' OR targets IS NOT NULL),
	CONSTRAINT scene_mail_has_no_url CHECK (mail IS NULL OR url IS NULL AND targets IS NULL AND secret_use = 'email'),
	CONSTRAINT scene_secret_not_sql CHECK (secret IS NULL OR NOT starts_with(url, 'sql:')),
	CONSTRAINT scene_secret_headers_have_url CHECK (
		coalesce(cardinality(retry.secret_names(headers)), 0) = 0
		OR targets IS NOT NULL OR url IS NOT NULL AND NOT starts_with(url, 'sql:')),
	CONSTRAINT scene_tls_has_url CHECK (
		tls_verify AND tls_cert IS NULL OR mail IS NOT NULL
		OR targets IS NOT NULL OR url IS NOT NULL AND NOT starts_with(url, 'sql:'))
);
COMMENT ON TABLE retry.scene IS
'One kind of call and how it is retried; a change counts for the next attempt of every task of the scene';
COMMENT ON COLUMN retry.scene.id IS 'Number by which tasks know the scene';
COMMENT ON COLUMN retry.scene.group_name IS 'The group it belongs to';
COMMENT ON COLUMN retry.scene.name IS 'Name, unique in its group: lower-case letters, digits, _ and -';
COMMENT ON COLUMN retry.scene.url IS 'Absolute http or https URL, or function (sql:schema.function), that is called, unless the task brings its own';
COMMENT ON COLUMN retry.scene.targets IS 'Base URLs that share the work, each ''URL'' or ''URL weight=N'', instead of url; route says which of them is called';
COMMENT ON COLUMN retry.scene.route IS 'How a target is chosen for each attempt: hash (by key, else reference, else task; moves least when targets change), random, round_robin, least_in_flight, lru (least recently used), first or last (the first or last healthy one), all (one task for each target)';
COMMENT ON COLUMN retry.scene.method IS 'HTTP method, in capitals';
COMMENT ON COLUMN retry.scene.headers IS 'Headers of every request, {"Name": "value"}; the task''s own win; {{secret:name}} in a value stands for a secret of the group';
COMMENT ON COLUMN retry.scene.timeout IS 'Time for one whole attempt, from 1 ms to 1 h';
COMMENT ON COLUMN retry.scene.connect_timeout IS 'Time for the connection of one attempt, from 1 ms to 1 h';
COMMENT ON COLUMN retry.scene.backoff IS 'When the next attempt follows a failed one';
COMMENT ON COLUMN retry.scene.max_attempts IS 'After this many failed attempts the task is dead';
COMMENT ON COLUMN retry.scene.expires_after IS 'No attempt starts later than this after the enqueue; null: no such limit';
COMMENT ON COLUMN retry.scene.time_budget IS 'No attempt starts later than this after the task was first due, and none lasts longer; null: no such limit';
COMMENT ON COLUMN retry.scene.success_status IS 'Statuses that mean success, as a list of numbers and ranges: 200-299,409';
COMMENT ON COLUMN retry.scene.stop_status IS 'Statuses after which the request is never repeated, as a list of numbers and ranges; 410 always stops, and stop_status counts before success_status';
COMMENT ON COLUMN retry.scene.stop_errors IS 'Errors after which the request is never repeated, as a list of classes: dns, connect, connect_timeout, tls, timeout, closed, malformed, or an SQLSTATE for sql: targets; null: none';
COMMENT ON COLUMN retry.scene.success_when IS 'Path over the JSON answer that must match for success; when it is set, no status alone means success';
COMMENT ON COLUMN retry.scene.pending_when IS 'Path over the JSON answer; when it matches, the receiver is still at work and is asked again after pending_interval';
COMMENT ON COLUMN retry.scene.stop_when IS 'Path over the JSON answer; when it matches, the request is never repeated';
COMMENT ON COLUMN retry.scene.pending_interval IS 'After an answer that says processing, the next attempt is made after this';
COMMENT ON COLUMN retry.scene.pending_limit IS 'After this many answers that say processing the task is dead; null: no limit. They do not count in max_attempts';
COMMENT ON COLUMN retry.scene.on_success IS 'Target that is told when a task has succeeded, unless the task names its own';
COMMENT ON COLUMN retry.scene.on_dead IS 'Target that is told when a task has died, unless the task names its own';
COMMENT ON COLUMN retry.scene.notify IS 'Channel on which sessions that LISTEN are notified when a task has succeeded or died, with {"id", "state", "scene"}; null: nobody is. A hint, which a crash may lose';
COMMENT ON COLUMN retry.scene.check_target IS 'Target that is asked about a message of retry.prepare() over which nobody decides, unless the call names its own';
COMMENT ON COLUMN retry.scene.check_after IS 'So long after a message was prepared it is asked for the first time, up to 30 days';
COMMENT ON COLUMN retry.scene.check_every IS 'So long after each time that did not decide it is asked again, from 1 ms to 30 days';
COMMENT ON COLUMN retry.scene.check_limit IS 'So many times it is asked at most';
COMMENT ON COLUMN retry.scene.undecided IS 'What is decided when it was asked as often: rollback or commit';
COMMENT ON COLUMN retry.scene.generate_key IS 'True: a task without a key gets the digest of target and payload as its key, see retry.digest_key()';
COMMENT ON COLUMN retry.scene.key_window IS 'For so long after a task has succeeded or died its key still leads to it; null: a finished task''s key is free';
COMMENT ON COLUMN retry.scene.lane_by IS 'What its tasks'' lanes are made by: origin (of the URL), scene (one lane for all), key or reference (a task without one has the scene''s lane); null: the lane of the URL''s origin, or one lane if the scene has max_in_flight, ordered or targets';
COMMENT ON COLUMN retry.scene.rate IS 'So many requests of the scene in a time, over all its lanes and dispatchers, such as 100/s or 5000/m burst 200; null: no limit';
COMMENT ON COLUMN retry.scene.max_in_flight IS 'Requests under way at once in a lane of this scene''s own; null: retry.lane_max_in_flight and the lane of the URL''s origin';
COMMENT ON COLUMN retry.scene.ordered IS 'True: the tasks of a lane are sent one after the other, in the order in which they are due, and each is retried until it has an outcome before the next is sent';
COMMENT ON COLUMN retry.scene.dead_head IS 'With ordered, what a dead task does to those behind it: skip (they go on) or block (they wait until it is replayed with success, or stepped over)';
COMMENT ON COLUMN retry.scene.priority IS 'high: its lanes are served before all lanes of scenes with normal';
COMMENT ON COLUMN retry.scene.weight IS 'Its lanes get so many times the share of a lane of weight 1 when requests have to wait for each other, from 1 to 100';
COMMENT ON COLUMN retry.scene.adaptive IS 'True: a lane finds out by latency and errors how many requests at once its endpoint can take, up to max_in_flight';
COMMENT ON COLUMN retry.scene.hedge IS 'True: an attempt that lasts longer than 95 of 100 others is sent a second time, and the first answer counts; only for calls that may be made twice';
COMMENT ON COLUMN retry.scene.breaker_ratio IS 'A lane''s breaker opens when this part of its calls has failed (0.5: half of them); null: it never opens';
COMMENT ON COLUMN retry.scene.breaker_calls IS 'The breaker does not open before so many calls within breaker_window';
COMMENT ON COLUMN retry.scene.breaker_window IS 'The breaker judges by the calls of this time, from 1 s to 1 h';
COMMENT ON COLUMN retry.scene.breaker_open IS 'For so long, and by chance up to a quarter more, an open breaker lets nothing pass, then single calls as probes; twice as long each time that they fail, up to 1 min or this, whichever is longer';
COMMENT ON COLUMN retry.scene.retry_share IS 'Retries of a lane wait when they are more than this part of its first attempts, plus retry_floor a second; null: they never do';
COMMENT ON COLUMN retry.scene.retry_floor IS 'So many retries a second are always within the budget of retry_share';
COMMENT ON COLUMN retry.scene.secret IS 'Name of a secret of its group, see retry.set_secret(), with which every request is signed (header webhook-signature); while it is not set the tasks wait';
COMMENT ON COLUMN retry.scene.secret_use IS 'What is made of the secret: webhook (header webhook-signature), dingtalk (timestamp and sign in the URL), feishu (timestamp and sign in the JSON body), pagerduty (it is the body''s routing_key itself), email (the password for a mail server)';
COMMENT ON COLUMN retry.scene.mail IS 'Of a channel''s scene that sends mail: server, user, sender and recipients. The server sets it';
COMMENT ON COLUMN retry.scene.tls_verify IS 'True: the certificate of whoever answers is verified; only a superuser can set it to false';
COMMENT ON COLUMN retry.scene.tls_unverified_by IS 'The superuser who set tls_verify to false, which counts while there is a superuser of that name. The server sets it';
COMMENT ON COLUMN retry.scene.tls_min_version IS 'Lowest version of TLS that is spoken, 1.2 or 1.3';
COMMENT ON COLUMN retry.scene.tls_ca IS 'Certificates of the authorities that are trusted for this scene, in PEM form; null: those of retry.ca_bundle, or the system''s';
COMMENT ON COLUMN retry.scene.tls_pin IS 'Digests of public keys, of which the server must have one, besides a certificate that is verified: sha256//base64, several with ; between; null: any';
COMMENT ON COLUMN retry.scene.tls_cert IS 'Name of a secret of its group that is the client certificate, with its private key; while it is not set the tasks wait';
COMMENT ON COLUMN retry.scene.paused IS 'While true nothing of the scene is sent; nothing is lost';
COMMENT ON COLUMN retry.scene.resume_over IS 'When the scene is resumed, what has become due meanwhile is spread over this time; null: all at once';
COMMENT ON COLUMN retry.scene.resumed_at IS 'When the scene was last resumed with resume_over set; the server sets it';
COMMENT ON COLUMN retry.scene.order_ended_at IS 'When the scene last ceased to be ordered; the server sets it';
COMMENT ON COLUMN retry.scene.archived IS 'While true the scene takes no new tasks and serves the old; a DELETE sets it in place of deleting while tasks refer to the scene';
COMMENT ON COLUMN retry.scene.deleted_at IS 'When a DELETE archived the scene: upkeep removes it when nothing refers to it any more; null: nobody deleted it. The server sets it, and takes it back when archived is set to false';
COMMENT ON COLUMN retry.scene.description IS 'For people';
COMMENT ON COLUMN retry.scene.created_at IS 'When the scene was created';

CREATE TABLE retry.secret
(
	group_id		int NOT NULL REFERENCES retry.scene_group (id) ON DELETE CASCADE,
	name			text NOT NULL
					CONSTRAINT secret_name_valid CHECK (name ~ '^[a-z0-9_-]{1,63}$'),
	set_at			timestamptz NOT NULL,
	signs_until		timestamptz,
	signs			boolean NOT NULL,
	certificate		boolean NOT NULL,
	value			text NOT NULL,
	PRIMARY KEY (group_id, name, set_at)
);
-- Row security keeps it from pg_read_all_data; its values are in no statistics and in no dump.
ALTER TABLE retry.secret ENABLE ROW LEVEL SECURITY;
ALTER TABLE retry.secret ALTER COLUMN value SET STATISTICS 0;
COMMENT ON TABLE retry.secret IS
'Secrets of groups, written by retry.set_secret() and never dumped; look at retry.secrets instead';
COMMENT ON COLUMN retry.secret.group_id IS 'The group whose scenes may name it';
COMMENT ON COLUMN retry.secret.name IS 'Name, as scenes have it';
COMMENT ON COLUMN retry.secret.set_at IS 'When this value was set';
COMMENT ON COLUMN retry.secret.signs_until IS 'A former value: it signs, besides the current one, until then; null: the current one';
COMMENT ON COLUMN retry.secret.signs IS 'The value is a key that signs';
COMMENT ON COLUMN retry.secret.certificate IS 'The value is a client certificate with its private key';
COMMENT ON COLUMN retry.secret.value IS 'The value';

CREATE TABLE retry.server
(
	group_name		text NOT NULL DEFAULT 'default'
					REFERENCES retry.scene_group (name) ON UPDATE CASCADE ON DELETE CASCADE,
	name			text NOT NULL
					CONSTRAINT server_name_valid CHECK (name ~ '^[a-z0-9_-]{1,63}$'),
	conninfo		text NOT NULL
					CONSTRAINT server_conninfo_valid CHECK (retry.check_conninfo(conninfo)),
	secret			text
					CONSTRAINT server_secret_valid CHECK (secret ~ '^[a-z0-9_-]{1,63}$'),
	timeout			interval NOT NULL DEFAULT '10 s'
					CONSTRAINT server_timeout_valid CHECK (timeout BETWEEN '1 ms' AND '1 min'),
	description		text,
	PRIMARY KEY (group_name, name)
);
COMMENT ON TABLE retry.server IS 'Other PostgreSQL servers, on which branches of two-phase commits are prepared';
COMMENT ON COLUMN retry.server.group_name IS 'The group whose transactions may have branches there';
COMMENT ON COLUMN retry.server.name IS 'Name, unique in the group: lower-case letters, digits, _ and -';
COMMENT ON COLUMN retry.server.conninfo IS 'How this server connects to it, as libpq has it: host, dbname and user at least, and no password';
COMMENT ON COLUMN retry.server.secret IS 'Name of the secret of the group that is the password; null: none is needed';
COMMENT ON COLUMN retry.server.timeout IS 'How long one command to it may take, connecting included';
COMMENT ON COLUMN retry.server.description IS 'For people';

CREATE TABLE retry.global_branch
(
	gid				uuid NOT NULL,
	branch_no		smallint NOT NULL,
	server			text NOT NULL,
	name			text NOT NULL,
	PRIMARY KEY (gid, branch_no)
);
COMMENT ON TABLE retry.global_branch IS 'Facts: the branches of two-phase commits, and where each is prepared; look at retry.branches instead';
COMMENT ON COLUMN retry.global_branch.gid IS 'The transaction';
COMMENT ON COLUMN retry.global_branch.branch_no IS 'The branch, from 1';
COMMENT ON COLUMN retry.global_branch.server IS 'Server, of the group of the transaction''s scene';
COMMENT ON COLUMN retry.global_branch.name IS 'Name of the prepared transaction there';

CREATE TABLE retry.lane_override
(
	group_name		text NOT NULL DEFAULT 'default'
					REFERENCES retry.scene_group (name) ON UPDATE CASCADE ON DELETE CASCADE,
	lane			text NOT NULL
					CONSTRAINT lane_override_lane_valid CHECK (octet_length(lane) BETWEEN 1 AND 10000),
	max_in_flight	int
					CONSTRAINT lane_override_max_in_flight_valid CHECK (max_in_flight BETWEEN 1 AND 10000),
	rate			retry.rate,
	ordered			boolean,
	weight			int
					CONSTRAINT lane_override_weight_valid CHECK (weight BETWEEN 1 AND 100),
	paused			boolean NOT NULL DEFAULT false,
	disabled		boolean NOT NULL DEFAULT false,
	reset_at		timestamptz
					CONSTRAINT lane_override_reset_at_valid CHECK (isfinite(reset_at)),
	description		text,
	created_at		timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (group_name, lane)
);
COMMENT ON TABLE retry.lane_override IS
'What an administrator says of single lanes, by the names that retry.lanes shows; it wins over what their scenes say, from the commit on';
COMMENT ON COLUMN retry.lane_override.group_name IS 'The group that the lane belongs to';
COMMENT ON COLUMN retry.lane_override.lane IS 'The lane''s name; it need not exist yet';
COMMENT ON COLUMN retry.lane_override.max_in_flight IS 'Requests under way at once; null: as its scene says';
COMMENT ON COLUMN retry.lane_override.rate IS 'So many requests of this lane in a time, such as 100/s or 5000/m burst 200, within what its scene may send; null: no limit of its own';
COMMENT ON COLUMN retry.lane_override.ordered IS 'One task after the other; null: as its scene says';
COMMENT ON COLUMN retry.lane_override.weight IS 'Its share of a dispatcher''s transfers against that of other lanes; null: as its scene says';
COMMENT ON COLUMN retry.lane_override.paused IS 'While true nothing is sent through the lane; nothing is lost';
COMMENT ON COLUMN retry.lane_override.disabled IS 'While true what becomes due dies at once, as a dead letter that can be replayed';
COMMENT ON COLUMN retry.lane_override.reset_at IS 'When it is set to a later moment, the lane''s breaker closes, and what its endpoint asked for is forgotten; see retry.reset_lane()';
COMMENT ON COLUMN retry.lane_override.description IS 'For people';
COMMENT ON COLUMN retry.lane_override.created_at IS 'When the row was made';

/*
 * Alarms.  A rule says what is to be told, a channel where to.  Messages are
 * tasks: each channel has a scene of its own, alarm-NAME, made by a trigger.
 */
CREATE FUNCTION retry.fill_template(template text, message jsonb) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
	-- in one pass: what is filled in is not looked at again
	SELECT string_agg(p.part || CASE
			WHEN n.name IS NULL THEN ''
			WHEN n.name = 'alarms' THEN (message -> 'alarms')::text
			ELSE substr(to_json(message ->> n.name)::text, 2, length(to_json(message ->> n.name)::text) - 2)
		END, '' ORDER BY p.i)
	FROM regexp_split_to_table(template, '\{\{[a-z_]+\}\}') WITH ORDINALITY AS p (part, i)
	LEFT JOIN LATERAL (
		SELECT m.found[1] AS name FROM regexp_matches(template, '\{\{([a-z_]+)\}\}', 'g') WITH ORDINALITY AS m (found, j)
		WHERE m.j = p.i) n ON true
$$;
COMMENT ON FUNCTION retry.fill_template(text, jsonb) IS
'A channel''s template with its {{placeholders}} replaced by members of a message, escaped as JSON strings are; {{alarms}} by the array itself';

CREATE FUNCTION retry.check_template(template text) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	known	CONSTANT jsonb := '{"title": "x", "text": "x", "state": "x", "severity": "x", "group": "x", "database": "x", "at": "x", "alarms": []}';
	unknown	text;
BEGIN
	SELECT min(m[1]) INTO unknown FROM regexp_matches(template, '\{\{([^{}]*)\}\}', 'g') m WHERE NOT known ? m[1];
	IF unknown IS NOT NULL THEN
		RAISE EXCEPTION 'unknown placeholder "{{%}}"', unknown
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Known are {{title}}, {{text}}, {{state}}, {{severity}}, {{group}}, {{database}}, {{at}} and {{alarms}}.';
	END IF;
	PERFORM retry.fill_template(template, known)::jsonb;
	RETURN true;
EXCEPTION WHEN invalid_text_representation THEN
	RAISE EXCEPTION 'the template is no JSON when it is filled in: %', left(template, 100)
		USING ERRCODE = 'invalid_parameter_value', DETAIL = SQLERRM,
			HINT = 'Placeholders stand within the quotes of strings; {{alarms}} stands for an array, and without.';
END
$$;
COMMENT ON FUNCTION retry.check_template(text) IS
'True for a template that is JSON when its placeholders are filled in, and for null; an ERROR that says why for any other';

CREATE FUNCTION retry.check_mail_url(url text) RETURNS boolean
LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'retry_check_mail_url';
COMMENT ON FUNCTION retry.check_mail_url(text) IS 'True for the URL of a mail server, and for null; an ERROR that says why for any other';

CREATE FUNCTION retry.check_mailbox(mailbox text) RETURNS boolean
LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'retry_check_mailbox';
COMMENT ON FUNCTION retry.check_mailbox(text) IS 'True for an address of mail, with a name or without, and for null; an ERROR that says why for any other';

CREATE FUNCTION retry.check_mailboxes(mailboxes text[]) RETURNS boolean
LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'retry_check_mailboxes';
COMMENT ON FUNCTION retry.check_mailboxes(text[]) IS 'True for a list of such addresses, and for null; an ERROR that says why for any other';

CREATE FUNCTION retry.check_mail_client() RETURNS boolean
LANGUAGE C STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'retry_check_mail_client';
COMMENT ON FUNCTION retry.check_mail_client() IS 'True when this server''s libcurl can send mail, else an ERROR';

CREATE TABLE retry.channel
(
	group_name	text NOT NULL DEFAULT 'default'
				REFERENCES retry.scene_group (name) ON UPDATE CASCADE ON DELETE CASCADE,
	name		text NOT NULL
				CONSTRAINT channel_name_valid CHECK (name ~ '^[a-z0-9_-]{1,57}$'),
	kind		text NOT NULL
				CONSTRAINT channel_kind_valid CHECK (kind IN ('webhook', 'slack', 'dingtalk', 'feishu', 'wecom', 'pagerduty', 'email')),
	url			text
				CONSTRAINT channel_url_valid CHECK (CASE WHEN url LIKE 'smtp%' THEN retry.check_mail_url(url)
					ELSE retry.check_url(url) AND NOT starts_with(url, 'sql:') END),
	secret		text
				CONSTRAINT channel_secret_valid CHECK (secret ~ '^[a-z0-9_-]{1,63}$'),
	template	text
				CONSTRAINT channel_template_valid CHECK (retry.check_template(template)),
	mail_from	text
				CONSTRAINT channel_mail_from_valid CHECK (retry.check_mailbox(mail_from)),
	mail_to		text[]
				CONSTRAINT channel_mail_to_valid CHECK (retry.check_mailboxes(mail_to)),
	mail_user	text
				CONSTRAINT channel_mail_user_valid CHECK (mail_user ~ '^[^[:cntrl:]]{1,255}$'),
	scene_id	int UNIQUE REFERENCES retry.scene (id),
	description	text,
	created_at	timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (group_name, name),
	CONSTRAINT channel_has_url CHECK (url IS NOT NULL OR kind = 'pagerduty'),
	CONSTRAINT channel_secret_has_use CHECK (CASE WHEN kind = 'pagerduty' THEN secret IS NOT NULL
		WHEN kind IN ('slack', 'wecom') THEN secret IS NULL ELSE true END),
	CONSTRAINT channel_template_of_webhook CHECK (template IS NULL OR kind = 'webhook'),
	CONSTRAINT channel_password_has_user CHECK (kind <> 'email' OR (secret IS NULL) = (mail_user IS NULL)),
	CONSTRAINT channel_smtp_of_email CHECK (url IS NULL OR (kind = 'email') = (url LIKE 'smtp%')),
	CONSTRAINT channel_mail_of_email CHECK (CASE WHEN kind = 'email' THEN mail_from IS NOT NULL AND mail_to IS NOT NULL
		ELSE mail_from IS NULL AND mail_to IS NULL AND mail_user IS NULL END),
	CONSTRAINT channel_password_needs_tls CHECK (mail_user IS NULL OR NOT starts_with(url, 'smtp+'))
);
COMMENT ON TABLE retry.channel IS 'Where alarms of a group are told; its messages are tasks of the scene alarm-NAME, which carries timeouts, TLS and backoff';
COMMENT ON COLUMN retry.channel.group_name IS 'The group whose rules may name it';
COMMENT ON COLUMN retry.channel.name IS 'Name, unique in its group: lower-case letters, digits, _ and -, at most 57';
COMMENT ON COLUMN retry.channel.kind IS 'What the receiver understands: webhook (a JSON document, or the template), slack, dingtalk, feishu (Lark too), wecom, pagerduty, email';
COMMENT ON COLUMN retry.channel.url IS 'Where messages are sent to; null of pagerduty: its usual address. Of email the server: smtps://host, smtp://host (TLS by STARTTLS) or smtp+plaintext://host';
COMMENT ON COLUMN retry.channel.secret IS 'Name of a secret of the group, see retry.set_secret(): what a robot''s messages are signed with, PagerDuty''s routing key, a webhook''s key, or the password of mail_user; null: none';
COMMENT ON COLUMN retry.channel.template IS 'Of a webhook: the body, JSON with {{placeholders}}; null: the whole document';
COMMENT ON COLUMN retry.channel.mail_from IS 'Of email: the sender, ops@example.com or Operations <ops@example.com>';
COMMENT ON COLUMN retry.channel.mail_to IS 'Of email: the recipients, each of whom is written to by a task of its own';
COMMENT ON COLUMN retry.channel.mail_user IS 'Of email: who signs in to the server, with the secret as the password; null: nobody';
COMMENT ON COLUMN retry.channel.scene_id IS 'The scene that its messages are tasks of; the server sets it';
COMMENT ON COLUMN retry.channel.description IS 'For people';
COMMENT ON COLUMN retry.channel.created_at IS 'When it was made';

CREATE TABLE retry.alarm_rule
(
	id				int GENERATED BY DEFAULT AS IDENTITY UNIQUE,
	group_name		text NOT NULL DEFAULT 'default'
					REFERENCES retry.scene_group (name) ON UPDATE CASCADE ON DELETE CASCADE,
	name			text NOT NULL
					CONSTRAINT alarm_rule_name_valid CHECK (name ~ '^[a-z0-9_-]{1,63}$'),
	scene			text,
	condition		text NOT NULL
					CONSTRAINT alarm_rule_condition_valid CHECK (condition IN ('dead', 'failure_ratio', 'errors', 'retrying', 'pending',
						'growth', 'oldest_due', 'breaker', 'disabled', 'no_target', 'channel', 'health', 'disk')),
	threshold		float8
					CONSTRAINT alarm_rule_threshold_valid CHECK (threshold > 0 AND threshold < 'infinity'),
	min_attempts	int NOT NULL DEFAULT 20
					CONSTRAINT alarm_rule_min_attempts_valid CHECK (min_attempts BETWEEN 1 AND 1000000000),
	period			interval NOT NULL DEFAULT '5 min'
					CONSTRAINT alarm_rule_period_valid CHECK (period BETWEEN '1 s' AND '1 day'),
	age				interval NOT NULL DEFAULT '5 min'
					CONSTRAINT alarm_rule_age_valid CHECK (age BETWEEN '1 s' AND '30 days'),
	channels		text[] NOT NULL DEFAULT '{}',
	severity		text NOT NULL DEFAULT 'error'
					CONSTRAINT alarm_rule_severity_valid CHECK (severity IN ('info', 'warning', 'error', 'critical')),
	collect			interval NOT NULL DEFAULT '30 s'
					CONSTRAINT alarm_rule_collect_valid CHECK (collect BETWEEN '0' AND '1 h'),
	quiet			interval NOT NULL DEFAULT '5 min'
					CONSTRAINT alarm_rule_quiet_valid CHECK (quiet BETWEEN '0' AND '30 days'),
	remind_after	interval DEFAULT '1 h'
					CONSTRAINT alarm_rule_remind_after_valid CHECK (remind_after BETWEEN '1 s' AND '30 days'),
	tell_recovery	boolean NOT NULL DEFAULT true,
	active			boolean NOT NULL DEFAULT true,
	description		text,
	created_at		timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (group_name, name),
	CONSTRAINT alarm_rule_ratio_valid CHECK (condition <> 'failure_ratio' OR threshold IS NULL OR threshold <= 1),
	CONSTRAINT alarm_rule_has_threshold CHECK (condition NOT IN ('retrying', 'pending', 'growth', 'disk') OR threshold IS NOT NULL)
);
COMMENT ON TABLE retry.alarm_rule IS 'What is told to whom: an alarm fires while its condition holds for something of the group; see retry.alarms';
COMMENT ON COLUMN retry.alarm_rule.id IS 'Number by which its state knows it';
COMMENT ON COLUMN retry.alarm_rule.group_name IS 'The group that it watches';
COMMENT ON COLUMN retry.alarm_rule.name IS 'Name, unique in its group: lower-case letters, digits, _ and -';
COMMENT ON COLUMN retry.alarm_rule.scene IS 'The scene that it watches; null: all of the group, but for those of channels';
COMMENT ON COLUMN retry.alarm_rule.condition IS 'dead (letters in period), failure_ratio (of attempts in period), errors (attempts that could not be made, in period), retrying, pending (tasks now), growth (of what waits, in period), oldest_due (something is due for age), breaker (of a lane opened in period, or is open), disabled (a lane or URL), no_target (a lane has no healthy one), channel (messages of one die, or wait for age), health (a row of retry.health() is not ok), disk (bytes of this database)';
COMMENT ON COLUMN retry.alarm_rule.threshold IS 'It fires from so many on; null: 1, of failure_ratio 0.5. Of health 2: only what is critical';
COMMENT ON COLUMN retry.alarm_rule.min_attempts IS 'failure_ratio does not fire with fewer attempts in period';
COMMENT ON COLUMN retry.alarm_rule.period IS 'Time that is looked at, by whole minutes, from 1 s to 1 day';
COMMENT ON COLUMN retry.alarm_rule.age IS 'oldest_due and channel fire when something is due for longer';
COMMENT ON COLUMN retry.alarm_rule.channels IS 'Names of channels of the group that are told';
COMMENT ON COLUMN retry.alarm_rule.severity IS 'info, warning, error, critical: for the receiver';
COMMENT ON COLUMN retry.alarm_rule.collect IS 'News are told when they have lasted for so long, together with all others of the group: an outage is one message';
COMMENT ON COLUMN retry.alarm_rule.quiet IS 'So much time is between two messages about it';
COMMENT ON COLUMN retry.alarm_rule.remind_after IS 'While it goes on firing it is told again after so long; null: never';
COMMENT ON COLUMN retry.alarm_rule.tell_recovery IS 'True: it is told too when it is over';
COMMENT ON COLUMN retry.alarm_rule.active IS 'False: it does not fire; what is firing recovers';
COMMENT ON COLUMN retry.alarm_rule.description IS 'For people; goes with the message';
COMMENT ON COLUMN retry.alarm_rule.created_at IS 'When it was made';

CREATE TABLE retry.alarm_state
(
	rule_id			int PRIMARY KEY REFERENCES retry.alarm_rule (id) ON DELETE CASCADE,
	firing			boolean NOT NULL,
	since			timestamptz NOT NULL,
	subjects		text[] NOT NULL,
	details			jsonb NOT NULL,
	changed_at		timestamptz,
	told			boolean NOT NULL DEFAULT false,
	told_at			timestamptz,
	told_subjects	text[] NOT NULL DEFAULT '{}',
	error			text
);
COMMENT ON TABLE retry.alarm_state IS 'What became of each alarm that has ever fired, written by the worker that looks at them; look at retry.alarms instead; not dumped';
COMMENT ON COLUMN retry.alarm_state.rule_id IS 'The rule';
COMMENT ON COLUMN retry.alarm_state.firing IS 'Its condition held at the last look';
COMMENT ON COLUMN retry.alarm_state.since IS 'Since when it does, or no longer does';
COMMENT ON COLUMN retry.alarm_state.subjects IS 'For which scenes, lanes, channels …';
COMMENT ON COLUMN retry.alarm_state.details IS 'And how: the first of them, in words';
COMMENT ON COLUMN retry.alarm_state.changed_at IS 'Since when there is something that was not told; null: there is nothing';
COMMENT ON COLUMN retry.alarm_state.told IS 'The last message said that it fires';
COMMENT ON COLUMN retry.alarm_state.told_at IS 'When that was; null: there was none';
COMMENT ON COLUMN retry.alarm_state.told_subjects IS 'And for which';
COMMENT ON COLUMN retry.alarm_state.error IS 'Why that message could not be enqueued; null: it was';

/*
 * 3. The store: facts in a ring of leaves
 *
 * task, attempt and signal only ever grow, until a whole leaf is finished and
 * truncated.  The leaf is chosen by enqueue from the day in the task's id; a
 * task's attempts and signals lie in the task's leaf.  Leaf 32 holds the tasks
 * that are due further ahead than the ring reaches, and the few survivors of a
 * leaf that was otherwise done.
 */

CREATE TABLE retry.task
(
	leaf			smallint NOT NULL,
	inert			boolean NOT NULL,
	max_attempts	int,
	id				uuid NOT NULL,
	xid				xid8 NOT NULL,
	lane_hash		bigint NOT NULL,
	due_at			timestamptz NOT NULL,
	scene_id		int NOT NULL,
	enqueued_by		regrole NOT NULL,
	expires_at		timestamptz,
	timeout_ms		int,
	depth			smallint,
	lane			text,
	key				text,
	reference		text,
	url				text,
	method			text,
	headers			jsonb,
	content_type	text,
	backoff			retry.backoff,
	on_success		text,
	on_dead			text,
	origin_id		uuid,
	replay_of		uuid,
	parent_id		uuid,
	body			bytea
) PARTITION BY LIST (leaf);
COMMENT ON TABLE retry.task IS 'Facts: one row for each task, written by retry.enqueue() and never changed; look at retry.tasks instead';
COMMENT ON COLUMN retry.task.leaf IS 'The leaf it lies in';
COMMENT ON COLUMN retry.task.inert IS 'True for a row that retry.enqueue() did not write (restored, replicated): not sent until retry.adopt()';
COMMENT ON COLUMN retry.task.max_attempts IS 'Overrides the scene''s';
COMMENT ON COLUMN retry.task.id IS 'UUIDv7';
COMMENT ON COLUMN retry.task.xid IS 'Top-level transaction that enqueued it';
COMMENT ON COLUMN retry.task.lane_hash IS 'The lane: first 8 bytes of SHA-256 over group, kind and name';
COMMENT ON COLUMN retry.task.due_at IS 'The first attempt is not made before; never before the moment of enqueue';
COMMENT ON COLUMN retry.task.scene_id IS 'The scene';
COMMENT ON COLUMN retry.task.enqueued_by IS 'Role that enqueued it';
COMMENT ON COLUMN retry.task.expires_at IS 'No attempt starts after this';
COMMENT ON COLUMN retry.task.timeout_ms IS 'Overrides the scene''s timeout, milliseconds';
COMMENT ON COLUMN retry.task.depth IS 'How many callbacks led to it; null: none';
COMMENT ON COLUMN retry.task.lane IS 'Name of the lane; null: the origin of the task''s own URL';
COMMENT ON COLUMN retry.task.key IS 'Idempotency key given by the caller';
COMMENT ON COLUMN retry.task.reference IS 'Business number given by the caller';
COMMENT ON COLUMN retry.task.url IS 'Overrides the scene''s URL';
COMMENT ON COLUMN retry.task.method IS 'Overrides the scene''s method';
COMMENT ON COLUMN retry.task.headers IS 'Added to the scene''s headers';
COMMENT ON COLUMN retry.task.content_type IS 'Content-Type of the body; null: application/json';
COMMENT ON COLUMN retry.task.backoff IS 'Overrides the scene''s backoff';
COMMENT ON COLUMN retry.task.on_success IS 'Target told of success';
COMMENT ON COLUMN retry.task.on_dead IS 'Target told of death';
COMMENT ON COLUMN retry.task.origin_id IS 'The first task of a chain of replays: it names the message to the receiver; null: the task itself';
COMMENT ON COLUMN retry.task.replay_of IS 'The finished task that this one replays';
COMMENT ON COLUMN retry.task.parent_id IS 'The task that led to this one';
COMMENT ON COLUMN retry.task.body IS 'The request''s body, as sent';

CREATE TABLE retry.attempt
(
	leaf			smallint NOT NULL,
	http_status		smallint,
	attempt_no		int NOT NULL,
	task_id			uuid NOT NULL,
	lane_hash		bigint NOT NULL,
	finished_at		timestamptz NOT NULL,
	duration_us		bigint NOT NULL,
	scene_id		int NOT NULL,
	outcome			retry.outcome NOT NULL,
	next_due		timestamptz,
	dns_us			int,
	connect_us		int,
	tls_us			int,
	first_byte_us	int,
	pendings		int,
	hedged			boolean,
	remote_address	inet,
	target			text,
	error			text,
	response		bytea
) PARTITION BY LIST (leaf);
COMMENT ON TABLE retry.attempt IS 'Facts: one row for each finished attempt, never changed; look at retry.attempts instead';
COMMENT ON COLUMN retry.attempt.leaf IS 'The leaf of its task';
COMMENT ON COLUMN retry.attempt.http_status IS 'Status of the answer; null when there was none';
COMMENT ON COLUMN retry.attempt.attempt_no IS '1, 2, 3 …, without gaps';
COMMENT ON COLUMN retry.attempt.task_id IS 'The task';
COMMENT ON COLUMN retry.attempt.lane_hash IS 'The task''s lane';
COMMENT ON COLUMN retry.attempt.finished_at IS 'When its end was known';
COMMENT ON COLUMN retry.attempt.duration_us IS 'Microseconds from its start to its end';
COMMENT ON COLUMN retry.attempt.scene_id IS 'The task''s scene';
COMMENT ON COLUMN retry.attempt.outcome IS 'What became of it';
COMMENT ON COLUMN retry.attempt.next_due IS 'The next attempt is not made before; null: this was the last';
COMMENT ON COLUMN retry.attempt.dns_us IS 'Microseconds to resolve the name; null: a kept connection';
COMMENT ON COLUMN retry.attempt.connect_us IS 'Microseconds from the start until connected; null: a kept connection';
COMMENT ON COLUMN retry.attempt.tls_us IS 'Microseconds from the start until TLS was agreed; null: no TLS or a kept connection';
COMMENT ON COLUMN retry.attempt.first_byte_us IS 'Microseconds from the start until the answer''s first byte';
COMMENT ON COLUMN retry.attempt.pendings IS 'How many of the task''s attempts so far, this one included, do not count in max_attempts; null: none';
COMMENT ON COLUMN retry.attempt.hedged IS 'Was it sent a second time because it lasted long? Null: its scene does not hedge';
COMMENT ON COLUMN retry.attempt.remote_address IS 'Address that was connected to';
COMMENT ON COLUMN retry.attempt.target IS 'Target of a routed scene that was called';
COMMENT ON COLUMN retry.attempt.error IS 'What went wrong, in words; network errors begin with their class and a colon, as in stop_errors';
COMMENT ON COLUMN retry.attempt.response IS 'First bytes of the answer''s body, at most retry.max_response_bytes';

CREATE TABLE retry.signal
(
	leaf			smallint NOT NULL,
	action			"char" NOT NULL,
	after_attempt	int NOT NULL,
	task_id			uuid NOT NULL,
	xid				xid8 NOT NULL,
	lane_hash		bigint NOT NULL,
	due_at			timestamptz NOT NULL,
	inert			boolean NOT NULL,
	asked_by		regrole NOT NULL,
	change			jsonb
) PARTITION BY LIST (leaf);
COMMENT ON TABLE retry.signal IS 'Facts: what administrators asked of tasks (cancel, run now, amend)';
COMMENT ON COLUMN retry.signal.leaf IS 'The leaf of its task';
COMMENT ON COLUMN retry.signal.action IS 'c: cancel, r: run now, a: amend, s: step over (the task is dead)';
COMMENT ON COLUMN retry.signal.after_attempt IS 'Number of attempts the task had when it was asked; run now counts for the next one only';
COMMENT ON COLUMN retry.signal.task_id IS 'The task';
COMMENT ON COLUMN retry.signal.xid IS 'Top-level transaction that asked';
COMMENT ON COLUMN retry.signal.lane_hash IS 'The task''s lane';
COMMENT ON COLUMN retry.signal.due_at IS 'When it takes effect: the moment it was asked, later when spread';
COMMENT ON COLUMN retry.signal.inert IS 'True for a row that no function of retry wrote';
COMMENT ON COLUMN retry.signal.asked_by IS 'Role that asked';
COMMENT ON COLUMN retry.signal.change IS 'What to change in the task, by column (amend); null for the other actions';

CREATE FUNCTION retry.mark_foreign_row() RETURNS trigger
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'retry_mark_foreign_row';
COMMENT ON FUNCTION retry.mark_foreign_row() IS
'Trigger: a row that comes in by COPY, restore or replication gets this transaction''s number and is inert; rows of retry.enqueue() do not pass here';

DO $ring$
DECLARE
	n	int;
	s	text;
BEGIN
	FOR n IN 0 .. 32 LOOP
		s := to_char(n, 'FM00');
		EXECUTE format('CREATE TABLE retry.task_%s PARTITION OF retry.task FOR VALUES IN (%s) WITH (autovacuum_vacuum_insert_scale_factor = 0.5)', s, n);
		EXECUTE format('CREATE TABLE retry.attempt_%s PARTITION OF retry.attempt FOR VALUES IN (%s) WITH (autovacuum_vacuum_insert_scale_factor = 0.5)', s, n);
		EXECUTE format('CREATE TABLE retry.signal_%s PARTITION OF retry.signal FOR VALUES IN (%s)', s, n);

		EXECUTE format('CREATE UNIQUE INDEX task_%s_id ON retry.task_%1$s (id)', s);
		EXECUTE format('CREATE INDEX task_%s_xid ON retry.task_%1$s (xid, id)', s);
		EXECUTE format('CREATE INDEX task_%s_due ON retry.task_%1$s (lane_hash, due_at, id)', s);
		EXECUTE format('CREATE INDEX task_%s_key ON retry.task_%1$s (key text_pattern_ops, scene_id) WHERE key IS NOT NULL', s);
		EXECUTE format('CREATE INDEX task_%s_reference ON retry.task_%1$s (reference, scene_id) WHERE reference IS NOT NULL', s);
		EXECUTE format('CREATE INDEX task_%s_replay ON retry.task_%1$s (replay_of) WHERE replay_of IS NOT NULL', s);
		EXECUTE format('CREATE INDEX task_%s_parent ON retry.task_%1$s (parent_id) WHERE parent_id IS NOT NULL', s);

		EXECUTE format('CREATE UNIQUE INDEX attempt_%s_no ON retry.attempt_%1$s (task_id, attempt_no)', s);
		EXECUTE format('CREATE INDEX attempt_%s_due ON retry.attempt_%1$s (lane_hash, next_due, task_id) WHERE next_due IS NOT NULL', s);
		EXECUTE format('CREATE INDEX attempt_%s_end ON retry.attempt_%1$s (outcome, finished_at) WHERE next_due IS NULL', s);

		EXECUTE format('CREATE INDEX signal_%s_task ON retry.signal_%1$s (task_id)', s);
		EXECUTE format('CREATE INDEX signal_%s_amend ON retry.signal_%1$s (task_id) WHERE action = ''a''', s);
		EXECUTE format('CREATE INDEX signal_%s_xid ON retry.signal_%1$s (xid, task_id)', s);
		EXECUTE format('CREATE INDEX signal_%s_due ON retry.signal_%1$s (lane_hash, due_at, task_id)', s);

		EXECUTE format('CREATE TRIGGER mark_foreign_row BEFORE INSERT ON retry.task_%s FOR EACH ROW EXECUTE FUNCTION retry.mark_foreign_row()', s);
		EXECUTE format('ALTER TABLE retry.task_%s ENABLE ALWAYS TRIGGER mark_foreign_row', s);
		EXECUTE format('CREATE TRIGGER mark_foreign_row BEFORE INSERT ON retry.signal_%s FOR EACH ROW EXECUTE FUNCTION retry.mark_foreign_row()', s);
		EXECUTE format('ALTER TABLE retry.signal_%s ENABLE ALWAYS TRIGGER mark_foreign_row', s);

		EXECUTE format('COMMENT ON TABLE retry.task_%s IS %L', s, CASE WHEN n < 32 THEN 'Leaf ' || n || ' of retry.task: days whose number is ' || n || ' modulo 32' ELSE 'The leaf of retry.task that is kept apart from the ring' END);
		EXECUTE format('COMMENT ON TABLE retry.attempt_%s IS %L', s, 'Leaf ' || n || ' of retry.attempt');
		EXECUTE format('COMMENT ON TABLE retry.signal_%s IS %L', s, 'Leaf ' || n || ' of retry.signal');

		PERFORM pg_extension_config_dump(format('retry.task_%s', s)::regclass, '');
		PERFORM pg_extension_config_dump(format('retry.attempt_%s', s)::regclass, '');
		PERFORM pg_extension_config_dump(format('retry.signal_%s', s)::regclass, '');
	END LOOP;
END
$ring$;

/*
 * 4. The store: what stands beside the ring
 */

CREATE TABLE retry.dead_letter
(
	LIKE retry.task,
	PRIMARY KEY (id),
	reason			retry.dead_reason NOT NULL,
	died_at			timestamptz NOT NULL,
	attempts		int NOT NULL,
	http_status		smallint,
	error			text,
	response		bytea
);
CREATE INDEX dead_letter_died_at ON retry.dead_letter (died_at);
CREATE INDEX dead_letter_scene ON retry.dead_letter (scene_id, died_at);
CREATE INDEX dead_letter_key ON retry.dead_letter (key text_pattern_ops) WHERE key IS NOT NULL;
CREATE INDEX dead_letter_reference ON retry.dead_letter (reference) WHERE reference IS NOT NULL;
COMMENT ON TABLE retry.dead_letter IS 'Facts: a whole copy of each dead task, written in the transaction that recorded its death; look at retry.dead_letters instead';
COMMENT ON COLUMN retry.dead_letter.reason IS 'Why it died';
COMMENT ON COLUMN retry.dead_letter.died_at IS 'When it died';
COMMENT ON COLUMN retry.dead_letter.attempts IS 'Number of its last attempt';
COMMENT ON COLUMN retry.dead_letter.http_status IS 'Status of the last answer; null when there was none';
COMMENT ON COLUMN retry.dead_letter.error IS 'What went wrong at the last attempt';
COMMENT ON COLUMN retry.dead_letter.response IS 'First bytes of the last answer''s body';

CREATE TABLE retry.replayed
(
	task_id			uuid PRIMARY KEY,
	replayed_as		uuid NOT NULL,
	replayed_at		timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE retry.replayed IS 'Facts: which dead letters were replayed, and as which task; each at most once by retry.replay_dead()';
COMMENT ON COLUMN retry.replayed.task_id IS 'The dead task';
COMMENT ON COLUMN retry.replayed.replayed_as IS 'The task that replays it';
COMMENT ON COLUMN retry.replayed.replayed_at IS 'When it was asked for';

CREATE TABLE retry.dead_head
(
	task_id			uuid NOT NULL,
	origin_id		uuid NOT NULL,
	lane_hash		bigint NOT NULL,
	scene_id		int NOT NULL,
	due_at			timestamptz NOT NULL,
	died_at			timestamptz NOT NULL
);
CREATE INDEX dead_head_lane ON retry.dead_head (lane_hash);
CREATE INDEX dead_head_task ON retry.dead_head (task_id);
COMMENT ON TABLE retry.dead_head IS 'Facts: tasks that died in an ordered lane whose scene has dead_head = block, and hold up those behind them until they are in retry.dead_head_passed';
COMMENT ON COLUMN retry.dead_head.task_id IS 'The dead task';
COMMENT ON COLUMN retry.dead_head.origin_id IS 'The first task of the chain of replays it is in';
COMMENT ON COLUMN retry.dead_head.lane_hash IS 'Its lane';
COMMENT ON COLUMN retry.dead_head.scene_id IS 'Its scene';
COMMENT ON COLUMN retry.dead_head.due_at IS 'With task_id, its place in the lane';
COMMENT ON COLUMN retry.dead_head.died_at IS 'When it died';

CREATE TABLE retry.dead_head_passed
(
	task_id			uuid NOT NULL,
	passed_at		timestamptz NOT NULL,
	passed_by		regrole
);
CREATE INDEX dead_head_passed_task ON retry.dead_head_passed (task_id);
COMMENT ON TABLE retry.dead_head_passed IS 'Facts: dead tasks that no longer hold up their lane';
COMMENT ON COLUMN retry.dead_head_passed.task_id IS 'The dead task';
COMMENT ON COLUMN retry.dead_head_passed.passed_at IS 'Since when';
COMMENT ON COLUMN retry.dead_head_passed.passed_by IS 'Role that stepped over it, or changed its scene; null: its replay has succeeded';

CREATE TABLE retry.key
(
	scene_id		int NOT NULL,
	role			oid NOT NULL,
	key				text NOT NULL,
	task_id			uuid NOT NULL,
	leaf			smallint NOT NULL,
	finished_at		timestamptz,
	PRIMARY KEY (scene_id, key, role)
);
COMMENT ON TABLE retry.key IS 'The newest task of each idempotency key; only retry.enqueue() and upkeep write it, workers never read it';
COMMENT ON COLUMN retry.key.scene_id IS 'The scene';
COMMENT ON COLUMN retry.key.role IS 'In the shared group default the role that enqueued, else 0';
COMMENT ON COLUMN retry.key.key IS 'The key';
COMMENT ON COLUMN retry.key.task_id IS 'Its newest task';
COMMENT ON COLUMN retry.key.leaf IS 'The leaf that task was put in';
COMMENT ON COLUMN retry.key.finished_at IS 'When that task finished, noted by upkeep if its history may go before the scene''s key_window is over';

CREATE TABLE retry.consumed
(
	role			regrole NOT NULL,
	consumer		text NOT NULL,
	message_id		text NOT NULL,
	at				timestamptz NOT NULL DEFAULT clock_timestamp(),
	PRIMARY KEY (role, consumer, message_id)
);
CREATE INDEX consumed_at ON retry.consumed (at);
COMMENT ON TABLE retry.consumed IS 'Facts: messages that receivers in this database have had, noted by retry.once(); kept for retry.retention';
COMMENT ON COLUMN retry.consumed.role IS 'Role that called retry.once(): each has consumers of its own';
COMMENT ON COLUMN retry.consumed.consumer IS 'What the receiver calls itself';
COMMENT ON COLUMN retry.consumed.message_id IS 'The message';
COMMENT ON COLUMN retry.consumed.at IS 'When it came first';

CREATE TABLE retry.barrier_note
(
	role			regrole NOT NULL,
	gid				uuid NOT NULL,
	branch			text NOT NULL,
	op				text NOT NULL,
	noted_by		text NOT NULL,
	at				timestamptz NOT NULL DEFAULT clock_timestamp(),
	PRIMARY KEY (gid, branch, op, role)
);
CREATE INDEX barrier_note_at ON retry.barrier_note (at);
COMMENT ON TABLE retry.barrier_note IS 'Facts: operations of global transactions that participants in this database have done, or are not to do any more, noted by retry.barrier(); kept for retry.retention';
COMMENT ON COLUMN retry.barrier_note.role IS 'Role that called retry.barrier(): each has branches of its own';
COMMENT ON COLUMN retry.barrier_note.gid IS 'The global transaction';
COMMENT ON COLUMN retry.barrier_note.branch IS 'The branch';
COMMENT ON COLUMN retry.barrier_note.op IS 'The operation';
COMMENT ON COLUMN retry.barrier_note.noted_by IS 'The operation that noted it: op itself, or the one that undoes it and came first';
COMMENT ON COLUMN retry.barrier_note.at IS 'When';

CREATE TABLE retry.global_transaction
(
	gid				uuid PRIMARY KEY,
	mode			text NOT NULL
					CONSTRAINT global_transaction_mode_valid CHECK (mode IN ('message', 'saga', 'tcc', '2pc')),
	scene_id		int NOT NULL,
	begun_by		regrole NOT NULL,
	begun_at		timestamptz NOT NULL,
	at_limit		text NOT NULL
					CONSTRAINT global_transaction_at_limit_valid CHECK (at_limit IN ('commit', 'rollback')),
	check_id		uuid,
	expires_at		timestamptz,
	key				text,
	reference		text
);
COMMENT ON TABLE retry.global_transaction IS 'Facts: one row for each global transaction, never changed; look at retry.transactions instead';
COMMENT ON COLUMN retry.global_transaction.gid IS 'Its id, UUIDv7; of a message also its task''s';
COMMENT ON COLUMN retry.global_transaction.mode IS 'Its kind: message, saga, tcc or 2pc';
COMMENT ON COLUMN retry.global_transaction.scene_id IS 'The scene that it belongs to, whose group says who may decide';
COMMENT ON COLUMN retry.global_transaction.begun_by IS 'Role that began it';
COMMENT ON COLUMN retry.global_transaction.begun_at IS 'When';
COMMENT ON COLUMN retry.global_transaction.at_limit IS 'What is decided when nobody else has: commit or rollback';
COMMENT ON COLUMN retry.global_transaction.check_id IS 'The task that decides if nobody else does: it asks about a message, or ends when the time is over; null: none';
COMMENT ON COLUMN retry.global_transaction.expires_at IS 'at_limit is decided then, if nothing else was; null: never, or when the check has told nothing';
COMMENT ON COLUMN retry.global_transaction.key IS 'Idempotency key given by the caller; of a message it is in the message';
COMMENT ON COLUMN retry.global_transaction.reference IS 'Business number given by the caller; of a message it is in the message';

CREATE TABLE retry.global_decision
(
	gid				uuid PRIMARY KEY,
	decided_at		timestamptz NOT NULL,
	decided_by		regrole,
	decision		text NOT NULL
					CONSTRAINT global_decision_valid CHECK (decision IN ('commit', 'rollback')),
	how				text NOT NULL
					CONSTRAINT global_decision_how_valid CHECK (how IN ('caller', 'check', 'limit', 'answers', 'timeout'))
);
CREATE INDEX global_decision_decided_at ON retry.global_decision (decided_at);
COMMENT ON TABLE retry.global_decision IS 'Facts: one row for each global transaction that is decided, stored with what it brings about';
COMMENT ON COLUMN retry.global_decision.gid IS 'The transaction';
COMMENT ON COLUMN retry.global_decision.decided_at IS 'When';
COMMENT ON COLUMN retry.global_decision.decided_by IS 'Role that called; null: a check has told, or nobody';
COMMENT ON COLUMN retry.global_decision.decision IS 'commit or rollback';
COMMENT ON COLUMN retry.global_decision.how IS 'What decided: caller (a function was called), check (an answer), limit (nobody has told), answers (of the operations), timeout';

CREATE TABLE retry.global_message
(
	LIKE retry.task INCLUDING COMMENTS,
	PRIMARY KEY (id)
);
CREATE INDEX global_message_scene ON retry.global_message (scene_id);
COMMENT ON TABLE retry.global_message IS 'Facts: what retry.prepare() was given, as the task that it becomes when it is committed';

/*
 * What a transaction consists of, in every mode but message.  Each operation is
 * stored as the task that it becomes; whoever decides, or records the end of
 * another operation, puts it among the tasks when its turn has come.  What is
 * known of it then is another fact: how it ended, or that it will not begin.
 */
CREATE TABLE retry.global_operation
(
	LIKE retry.task INCLUDING COMMENTS,
	gid				uuid NOT NULL,
	branch_no		smallint NOT NULL,
	op				text NOT NULL
					CONSTRAINT global_operation_op_valid
					CHECK (op IN ('action', 'compensate', 'try', 'confirm', 'cancel', 'commit', 'rollback')),
	branch			text NOT NULL,
	needs			bigint NOT NULL DEFAULT 0,
	PRIMARY KEY (gid, branch_no, op)
);
COMMENT ON TABLE retry.global_operation IS 'Facts: the operations of global transactions, as the tasks that they become when their turn comes; look at retry.branches instead';
COMMENT ON COLUMN retry.global_operation.gid IS 'The transaction';
COMMENT ON COLUMN retry.global_operation.branch_no IS 'The branch, from 1';
COMMENT ON COLUMN retry.global_operation.op IS 'What is done there: first action or try; when it is decided confirm or commit, or compensate, cancel or rollback';
COMMENT ON COLUMN retry.global_operation.branch IS 'Name of the branch';
COMMENT ON COLUMN retry.global_operation.needs IS 'Of an action: the branches whose actions must be done before it begins, as bits: 1 the first, 2 the second, 4 the third';

CREATE TABLE retry.global_outcome
(
	gid				uuid NOT NULL,
	branch_no		smallint NOT NULL,
	op				text NOT NULL,
	outcome			text NOT NULL
					CONSTRAINT global_outcome_valid CHECK (outcome IN ('done', 'failed', 'not begun', 'asked')),
	at				timestamptz NOT NULL,
	settled_by		regrole,
	PRIMARY KEY (gid, branch_no, op)
);
COMMENT ON TABLE retry.global_outcome IS 'Facts: how operations of global transactions have ended, each once, stored with the record of their task''s end';
COMMENT ON COLUMN retry.global_outcome.gid IS 'The transaction';
COMMENT ON COLUMN retry.global_outcome.branch_no IS 'The branch; 0: the transaction as a whole';
COMMENT ON COLUMN retry.global_outcome.op IS 'The operation';
COMMENT ON COLUMN retry.global_outcome.outcome IS 'done, failed, not begun (it was rolled back before), or asked (a commit, to be decided when all tries are done)';
COMMENT ON COLUMN retry.global_outcome.at IS 'When that was recorded';
COMMENT ON COLUMN retry.global_outcome.settled_by IS 'Role that said so; null: its task has told';

CREATE TABLE retry.checkpoint_a
(
	taken_at		timestamptz NOT NULL,
	dispatcher		int NOT NULL,
	slots			bigint NOT NULL,
	snapshot_xmin			xid8 NOT NULL,
	snapshot_xmax			xid8 NOT NULL,
	snapshot_xip				xid8[] NOT NULL,
	low_water		timestamptz NOT NULL,
	lane_hash		bigint[] NOT NULL,
	lane_due		timestamptz[] NOT NULL,
	lane_waiting	bigint[] NOT NULL,
	held_scene		int[] NOT NULL,
	held_due		timestamptz[] NOT NULL,
	url_scene		int[] NOT NULL,
	url_due			timestamptz[] NOT NULL,
	url_expires		timestamptz[] NOT NULL,
	url_digest		bigint[] NOT NULL
);
COMMENT ON TABLE retry.checkpoint_a IS 'Where the dispatchers are: appended to now and then, and truncated when checkpoint_b has taken over; not dumped';
COMMENT ON COLUMN retry.checkpoint_a.taken_at IS 'When';
COMMENT ON COLUMN retry.checkpoint_a.dispatcher IS 'Number of the dispatcher';
COMMENT ON COLUMN retry.checkpoint_a.slots IS 'The slots it spoke for, one bit each';
COMMENT ON COLUMN retry.checkpoint_a.snapshot_xmin IS 'Snapshot up to which the feed was read: every transaction before was seen';
COMMENT ON COLUMN retry.checkpoint_a.snapshot_xmax IS 'No transaction from here on was seen';
COMMENT ON COLUMN retry.checkpoint_a.snapshot_xip IS 'Between the two, those not seen';
COMMENT ON COLUMN retry.checkpoint_a.low_water IS 'Everything seen and due before was resolved, but for the lanes that lag';
COMMENT ON COLUMN retry.checkpoint_a.lane_hash IS 'The lanes that lag';
COMMENT ON COLUMN retry.checkpoint_a.lane_due IS 'Where each of them is';
COMMENT ON COLUMN retry.checkpoint_a.lane_waiting IS 'About how many entries of each wait: first attempts times 2^32, and retries';
COMMENT ON COLUMN retry.checkpoint_a.held_scene IS 'Paused scenes whose entries were passed over';
COMMENT ON COLUMN retry.checkpoint_a.held_due IS 'The earliest due time passed over in each of them';
COMMENT ON COLUMN retry.checkpoint_a.url_scene IS 'Scenes of which entries were passed over since their URL is disabled';
COMMENT ON COLUMN retry.checkpoint_a.url_due IS 'The earliest due time of these in each of them';
COMMENT ON COLUMN retry.checkpoint_a.url_expires IS 'When the first of these expires';
COMMENT ON COLUMN retry.checkpoint_a.url_digest IS 'Which URLs of the scene were disabled, and where it called, as one number';

CREATE TABLE retry.checkpoint_b (LIKE retry.checkpoint_a INCLUDING COMMENTS);
COMMENT ON TABLE retry.checkpoint_b IS 'As checkpoint_a: the two take turns; not dumped';

CREATE TABLE retry.disabled_url
(
	scene_id		int NOT NULL,
	url				text NOT NULL,
	since			timestamptz NOT NULL,
	task_id			uuid,
	disabled_by		regrole NOT NULL,
	http_status		smallint,
	reason			text
);
CREATE INDEX disabled_url_url ON retry.disabled_url USING hash (url);
COMMENT ON TABLE retry.disabled_url IS 'Facts: URLs that nothing is sent to in a scene, until retry.enable_url() deletes them; a dispatcher never waits for a session here, so there may be several rows for one; look at retry.disabled_urls instead';
COMMENT ON COLUMN retry.disabled_url.scene_id IS 'The scene';
COMMENT ON COLUMN retry.disabled_url.url IS 'The URL, as retry.canonical_url() spells it';
COMMENT ON COLUMN retry.disabled_url.since IS 'When it was disabled';
COMMENT ON COLUMN retry.disabled_url.task_id IS 'The task whose attempt was answered with 410; null: an administrator disabled it';
COMMENT ON COLUMN retry.disabled_url.disabled_by IS 'Role that enqueued that task, or the administrator';
COMMENT ON COLUMN retry.disabled_url.http_status IS 'Status of the answer; null: there was none';
COMMENT ON COLUMN retry.disabled_url.reason IS 'What the administrator gave as the reason';

CREATE TABLE retry.installation
(
	database		oid NOT NULL,
	boundary		pg_snapshot NOT NULL DEFAULT pg_current_snapshot(),
	adopted			boolean NOT NULL,
	at				timestamptz NOT NULL DEFAULT now(),
	by				text NOT NULL DEFAULT session_user
);
COMMENT ON TABLE retry.installation IS
'Facts: in which database this copy lives, and when retry.adopt() was called; what came from elsewhere is not sent before; not dumped';
COMMENT ON COLUMN retry.installation.database IS 'OID of the database';
COMMENT ON COLUMN retry.installation.boundary IS 'The snapshot of the moment: adopt() lets go what it sees; a copied database holds what it sees';
COMMENT ON COLUMN retry.installation.adopted IS 'True: made by CREATE EXTENSION or retry.adopt(); false: a worker found itself in a copy';
COMMENT ON COLUMN retry.installation.at IS 'When';
COMMENT ON COLUMN retry.installation.by IS 'By whom';

CREATE TABLE retry.place
(
	xid				xid8 NOT NULL,
	system			bigint NOT NULL,
	timeline		int NOT NULL,
	backup			text,
	directory		text NOT NULL,
	at				timestamptz NOT NULL
);
COMMENT ON TABLE retry.place IS
'Facts: the servers that have delivered from this database, the latest of which knows itself again; one that was started from a base backup of it is told apart from one that took over; not dumped';
COMMENT ON COLUMN retry.place.xid IS 'Transaction that wrote it; the greatest is the latest';
COMMENT ON COLUMN retry.place.system IS 'Identifier of the database system, as in pg_control_system()';
COMMENT ON COLUMN retry.place.timeline IS 'Its timeline: promotion begins a new one';
COMMENT ON COLUMN retry.place.backup IS 'Begin of the base backup that the data directory was made from, as in its backup_label.old; null: none';
COMMENT ON COLUMN retry.place.directory IS 'Data directory';
COMMENT ON COLUMN retry.place.at IS 'When it began to deliver';

/* a boundary that sees nothing: rows restored in this very transaction are held */
INSERT INTO retry.installation (database, boundary, adopted)
SELECT oid, '3:3:', true FROM pg_catalog.pg_database WHERE datname = current_database();

CREATE TABLE retry.purge_request
(
	before			timestamptz NOT NULL,
	asked_by		text NOT NULL DEFAULT session_user,
	asked_at		timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE retry.purge_request IS 'Facts: what retry.purge() asked for; upkeep carries out the latest';
COMMENT ON COLUMN retry.purge_request.before IS 'Finished history older than this is to go';
COMMENT ON COLUMN retry.purge_request.asked_by IS 'Who asked';
COMMENT ON COLUMN retry.purge_request.asked_at IS 'When';

CREATE TABLE retry.event
(
	at				timestamptz NOT NULL,
	lane_hash		bigint,
	group_id		int,
	scene_id		int,
	dispatcher		int,
	kind			text NOT NULL,
	lane			text,
	target			text,
	detail			text
);
CREATE INDEX event_at ON retry.event (at);
COMMENT ON TABLE retry.event IS 'Facts: what happened to lanes, targets, dispatchers and configuration; kept for retry.retention; look at retry.events instead';
COMMENT ON COLUMN retry.event.at IS 'When it happened';
COMMENT ON COLUMN retry.event.lane_hash IS 'The lane''s number';
COMMENT ON COLUMN retry.event.group_id IS 'The group that the lane belongs to; null: it concerns all';
COMMENT ON COLUMN retry.event.scene_id IS 'The scene whose task it happened with';
COMMENT ON COLUMN retry.event.dispatcher IS 'Number of the dispatcher';
COMMENT ON COLUMN retry.event.kind IS 'What happened: breaker opened, breaker closed, throttled, blocked …';
COMMENT ON COLUMN retry.event.lane IS 'The lane''s name';
COMMENT ON COLUMN retry.event.target IS 'Target of a routed scene, or URL, that it concerns';
COMMENT ON COLUMN retry.event.detail IS 'More, in words';

CREATE TABLE retry.stat_hour
(
	at				timestamptz NOT NULL,
	scene_id		int NOT NULL,
	enqueued		bigint NOT NULL,
	succeeded		bigint NOT NULL,
	failed			bigint NOT NULL,
	processing		bigint NOT NULL,
	stopped			bigint NOT NULL,
	expired			bigint NOT NULL,
	blocked			bigint NOT NULL,
	error			bigint NOT NULL,
	retries			bigint NOT NULL,
	dead			bigint NOT NULL,
	cancelled		bigint NOT NULL,
	busy_us			bigint NOT NULL,
	late_us			bigint NOT NULL,
	latency			bigint[]
);
CREATE INDEX stat_hour_at ON retry.stat_hour (at, scene_id);
COMMENT ON TABLE retry.stat_hour IS 'Statistics of scenes by the hour, added up by upkeep from retry.stat_minute; kept for a hundred days';
COMMENT ON COLUMN retry.stat_hour.at IS 'When the time begins';
COMMENT ON COLUMN retry.stat_hour.scene_id IS 'Scene';
COMMENT ON COLUMN retry.stat_hour.enqueued IS 'Tasks that have come';
COMMENT ON COLUMN retry.stat_hour.succeeded IS 'Attempts that succeeded, each of which ended a task';
COMMENT ON COLUMN retry.stat_hour.failed IS 'Attempts that failed and may be tried again';
COMMENT ON COLUMN retry.stat_hour.processing IS 'Attempts whose receiver asked to be asked later';
COMMENT ON COLUMN retry.stat_hour.stopped IS 'Attempts after which the task is not to be tried again';
COMMENT ON COLUMN retry.stat_hour.expired IS 'Tasks that had no time left';
COMMENT ON COLUMN retry.stat_hour.blocked IS 'Attempts to an address that is not allowed';
COMMENT ON COLUMN retry.stat_hour.error IS 'Attempts that could not be made or recorded properly';
COMMENT ON COLUMN retry.stat_hour.retries IS 'Attempts that were not the first of their tasks';
COMMENT ON COLUMN retry.stat_hour.dead IS 'Tasks that died';
COMMENT ON COLUMN retry.stat_hour.cancelled IS 'Tasks that were cancelled';
COMMENT ON COLUMN retry.stat_hour.busy_us IS 'Microseconds that all attempts took together';
COMMENT ON COLUMN retry.stat_hour.late_us IS 'Microseconds: how late after its due time the latest attempt was begun';
COMMENT ON COLUMN retry.stat_hour.latency IS 'Of attempts that were sent: how many took how long, by the numbers of retry.percentile()';

CREATE TABLE retry.stat_minute
(
	LIKE retry.stat_hour INCLUDING COMMENTS,
	dispatcher		int NOT NULL
);
CREATE INDEX stat_minute_at ON retry.stat_minute (at);
COMMENT ON TABLE retry.stat_minute IS 'Statistics of scenes by the minute, written by the dispatchers when it is over; kept for two days; look at retry.stats instead';
COMMENT ON COLUMN retry.stat_minute.dispatcher IS 'Number of the dispatcher that counted';

CREATE TABLE retry.stat_day (LIKE retry.stat_hour INCLUDING COMMENTS);
CREATE INDEX stat_day_at ON retry.stat_day (at, scene_id);
COMMENT ON TABLE retry.stat_day IS 'The same by the day, as the time zone of setting log_timezone has it; kept for three years';

CREATE TABLE retry.scene_count
(
	scene_id		int PRIMARY KEY,
	pending			bigint NOT NULL,
	retrying		bigint NOT NULL,
	dead			bigint NOT NULL
);
COMMENT ON TABLE retry.scene_count IS
'How many tasks of each scene waited, and dead letters there were, when upkeep counted them, less what the dispatchers had not stored yet; not dumped';
COMMENT ON COLUMN retry.scene_count.scene_id IS 'Scene';
COMMENT ON COLUMN retry.scene_count.pending IS 'Tasks without an attempt';
COMMENT ON COLUMN retry.scene_count.retrying IS 'Tasks whose last attempt asks for another';
COMMENT ON COLUMN retry.scene_count.dead IS 'Dead letters';

CREATE TABLE retry.count_change
(
	xid				xid8 NOT NULL,
	scene_id		int NOT NULL,
	pending			bigint NOT NULL,
	retrying		bigint NOT NULL,
	dead			bigint NOT NULL
);
COMMENT ON TABLE retry.count_change IS
'Facts: by how many the tasks of a scene have changed in a minute, written with its statistics, until they are counted anew; not dumped';
COMMENT ON COLUMN retry.count_change.xid IS 'Transaction that wrote it: the boundary in retry.counted says whether it counts still';
COMMENT ON COLUMN retry.count_change.scene_id IS 'Scene';
COMMENT ON COLUMN retry.count_change.pending IS 'More tasks without an attempt; less than 0: fewer';
COMMENT ON COLUMN retry.count_change.retrying IS 'More tasks whose last attempt asks for another';
COMMENT ON COLUMN retry.count_change.dead IS 'More dead letters';

CREATE TABLE retry.counted
(
	one				boolean PRIMARY KEY DEFAULT true
					CONSTRAINT counted_one_row CHECK (one),
	boundary		pg_snapshot NOT NULL,
	at				timestamptz NOT NULL DEFAULT now(),
	took			interval
);
COMMENT ON TABLE retry.counted IS 'When retry.scene_count was counted: what its boundary sees is in it; not dumped';
COMMENT ON COLUMN retry.counted.one IS 'True: there is one row';
COMMENT ON COLUMN retry.counted.boundary IS 'Snapshot that it was counted with';
COMMENT ON COLUMN retry.counted.at IS 'When';
COMMENT ON COLUMN retry.counted.took IS 'How long that took; null: there was nothing to count yet';
INSERT INTO retry.counted (boundary) VALUES (pg_current_snapshot());

CREATE TABLE retry.audit_entry
(
	at				timestamptz NOT NULL,
	session_role	text NOT NULL,
	role			text NOT NULL,
	action			text NOT NULL,
	group_id		int,
	group_name		text,
	object			text,
	task_id			uuid,
	before			jsonb,
	after			jsonb
);
CREATE INDEX audit_entry_at ON retry.audit_entry (at);
COMMENT ON TABLE retry.audit_entry IS 'Facts: who did what, append-only, kept for retry.audit_retention; look at retry.audit instead';
COMMENT ON COLUMN retry.audit_entry.at IS 'When';
COMMENT ON COLUMN retry.audit_entry.session_role IS 'Who had logged in (session_user)';
COMMENT ON COLUMN retry.audit_entry.role IS 'As which role it was done (current_user)';
COMMENT ON COLUMN retry.audit_entry.action IS 'What was done: scene changed, secret set, task cancelled …';
COMMENT ON COLUMN retry.audit_entry.group_id IS 'The group that it was done in; null: in none, or in several';
COMMENT ON COLUMN retry.audit_entry.group_name IS 'Name of the group, as it was then';
COMMENT ON COLUMN retry.audit_entry.object IS 'Name of the scene, lane, secret, role, schedule or URL';
COMMENT ON COLUMN retry.audit_entry.task_id IS 'The task';
COMMENT ON COLUMN retry.audit_entry.before IS 'What differs, as it was; values of headers and payloads are not in it';
COMMENT ON COLUMN retry.audit_entry.after IS 'What differs, as it is then; of a call for many tasks its arguments';

CREATE TABLE retry.schedule_definition
(
	id				int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
	owner			regrole NOT NULL,
	name			text NOT NULL
					CONSTRAINT schedule_name_valid CHECK (name ~ '^[a-z0-9_-]{1,63}$'),
	cron			text NOT NULL,
	tz				text NOT NULL,
	target			text NOT NULL,
	payload			jsonb,
	options			jsonb,
	missed			text NOT NULL
					CONSTRAINT schedule_missed_valid CHECK (missed IN ('skip', 'once', 'all')),
	active			boolean NOT NULL,
	since			timestamptz NOT NULL,
	cron_job		bigint,
	inert			boolean NOT NULL,
	xid				xid8 NOT NULL,
	UNIQUE (owner, name)
);
COMMENT ON TABLE retry.schedule_definition IS 'Recurring tasks, as retry.schedule() wrote them; look at retry.schedules instead';
COMMENT ON COLUMN retry.schedule_definition.id IS 'Number by which its runs know it';
COMMENT ON COLUMN retry.schedule_definition.owner IS 'Role that made it; its runs are enqueued as this role, with the rights it has then';
COMMENT ON COLUMN retry.schedule_definition.name IS 'Name, unique for the role: lower-case letters, digits, _ and -';
COMMENT ON COLUMN retry.schedule_definition.cron IS 'Five fields, in their canonical form';
COMMENT ON COLUMN retry.schedule_definition.tz IS 'Time zone of the five fields';
COMMENT ON COLUMN retry.schedule_definition.target IS 'What each run is enqueued for';
COMMENT ON COLUMN retry.schedule_definition.payload IS 'Request body of each run';
COMMENT ON COLUMN retry.schedule_definition.options IS 'More arguments of retry.enqueue(), by name';
COMMENT ON COLUMN retry.schedule_definition.missed IS 'What becomes of runs that are a minute late or more: skip, once (the latest of them), all';
COMMENT ON COLUMN retry.schedule_definition.active IS 'False: it does not run';
COMMENT ON COLUMN retry.schedule_definition.since IS 'Nominal times after this moment are its runs';
COMMENT ON COLUMN retry.schedule_definition.cron_job IS 'Its job of pg_cron; null: there is none';
COMMENT ON COLUMN retry.schedule_definition.inert IS 'True for a row that retry.schedule() did not write (restored, replicated): it does not run before retry.adopt()';
COMMENT ON COLUMN retry.schedule_definition.xid IS 'Transaction that wrote it';

CREATE TABLE retry.schedule_run
(
	schedule_id		int NOT NULL REFERENCES retry.schedule_definition (id) ON DELETE CASCADE,
	nominal			timestamptz NOT NULL,
	at				timestamptz NOT NULL DEFAULT clock_timestamp(),
	task_id			uuid,
	error			text,
	PRIMARY KEY (schedule_id, nominal)
);
CREATE INDEX schedule_run_nominal ON retry.schedule_run (nominal);
COMMENT ON TABLE retry.schedule_run IS 'Facts: the runs of schedules, written in the transaction that enqueues the task; the newest of a schedule says how far it has come';
COMMENT ON COLUMN retry.schedule_run.schedule_id IS 'The schedule';
COMMENT ON COLUMN retry.schedule_run.nominal IS 'The moment that the schedule names; earlier ones without a row were passed over';
COMMENT ON COLUMN retry.schedule_run.at IS 'When it was dealt with';
COMMENT ON COLUMN retry.schedule_run.task_id IS 'The task; null: it was missed';
COMMENT ON COLUMN retry.schedule_run.error IS 'Why it could not be enqueued; null with a null task: the schedule skips missed runs';

CREATE FUNCTION retry.mark_foreign_schedule() RETURNS trigger
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF TG_OP = 'INSERT' OR current_setting('session_replication_role') = 'replica' THEN
		NEW.inert := true;
		NEW.xid := pg_current_xact_id();
	END IF;
	RETURN NEW;
END
$$;
COMMENT ON FUNCTION retry.mark_foreign_schedule() IS
'Trigger: a schedule that comes in by COPY, restore or replication does not run until retry.adopt(); retry.schedule() takes the mark off its own';

CREATE FUNCTION retry.skip_replicated() RETURNS trigger
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION retry.skip_replicated() IS
'Trigger: what is true of one installation only is not taken over from another by logical replication';

CREATE FUNCTION retry.config_changed() RETURNS trigger
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'retry_config_changed';
COMMENT ON FUNCTION retry.config_changed() IS 'Trigger: tells the dispatchers, at commit, that configuration has changed';

CREATE FUNCTION retry.merge_builtin() RETURNS trigger
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	columns	text := (
		SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
		WHERE attrelid = TG_RELID AND attnum > 0 AND NOT attisdropped
			AND attname NOT IN ('id', 'group_name', 'name'));
BEGIN
	EXECUTE format('UPDATE %s SET (%s) = (SELECT %2$s FROM (SELECT $1.*) AS new_row) WHERE name = $1.name%s',
				   TG_RELID::regclass, columns,
				   CASE WHEN TG_TABLE_NAME = 'scene' THEN ' AND group_name = $1.group_name' END)
	USING NEW;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION retry.merge_builtin() IS
'Trigger: the built-in group and scene are replaced by a row of the same name, as in a restored dump, instead of colliding with it';

CREATE FUNCTION retry.scene_in_use(id int) RETURNS boolean
LANGUAGE C VOLATILE STRICT COST 10000 AS 'MODULE_PATHNAME', 'retry_scene_in_use';
COMMENT ON FUNCTION retry.scene_in_use(int) IS
'True when something refers to the scene as of now, or a transaction is storing tasks, which may be of any scene';

CREATE FUNCTION retry.archive_scene() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	of_channel	text;
BEGIN
	IF TG_RELID <> 'retry.scene'::regclass THEN
		RAISE EXCEPTION 'archive_scene() is of no use on table "%"', TG_TABLE_NAME
			USING ERRCODE = 'trigger_protocol_violated';
	END IF;
	IF OLD.group_name = 'default' AND OLD.name = 'default' THEN
		RAISE EXCEPTION 'the scene default/default cannot be deleted'
			USING ERRCODE = 'dependent_objects_still_exist', HINT = 'Targets that are plain URLs use it; set paused instead.';
	END IF;
	SELECT c.name INTO of_channel FROM retry.channel c WHERE c.scene_id = OLD.id;
	IF of_channel IS NOT NULL THEN
		RAISE EXCEPTION 'scene "%/%" cannot be deleted: it is that of channel "%"', OLD.group_name, OLD.name, of_channel
			USING ERRCODE = 'dependent_objects_still_exist', HINT = 'It goes with the channel, see retry.drop_channel().';
	END IF;
	IF retry.scene_in_use(OLD.id) THEN
		UPDATE retry.scene SET archived = true, deleted_at = coalesce(deleted_at, clock_timestamp()) WHERE id = OLD.id;
		RETURN NULL;
	END IF;
	DELETE FROM retry.disabled_url d WHERE d.scene_id = OLD.id;
	RETURN OLD;
END
$$;
COMMENT ON FUNCTION retry.archive_scene() IS
'Trigger: a scene that tasks refer to is archived instead of deleted: it takes no new tasks and serves the old';

CREATE FUNCTION retry.check_function() RETURNS trigger
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'retry_check_function';
COMMENT ON FUNCTION retry.check_function() IS
'Trigger: a scene''s url that names a function (sql:schema.function) must name one that exists and can be a target';

CREATE FUNCTION retry.keep_group() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	scenes	text;
BEGIN
	IF TG_RELID <> 'retry.scene_group'::regclass THEN
		RAISE EXCEPTION 'keep_group() is of no use on table "%"', TG_TABLE_NAME
			USING ERRCODE = 'trigger_protocol_violated';
	END IF;
	IF OLD.name = 'default' THEN
		RAISE EXCEPTION 'the group default cannot be deleted'
			USING ERRCODE = 'dependent_objects_still_exist', HINT = 'Targets without a group use it; set paused instead.';
	END IF;
	SELECT string_agg(format('"%s"%s', s.name, CASE WHEN s.archived THEN ' (archived)' END), ', ' ORDER BY s.name) INTO scenes
	FROM retry.scene s
	WHERE s.group_name = OLD.name;
	IF scenes IS NOT NULL THEN
		RAISE EXCEPTION 'group "%" cannot be deleted while it has scenes', OLD.name
			USING ERRCODE = 'dependent_objects_still_exist', DETAIL = format('Its scenes: %s.', scenes),
				HINT = 'Delete its scenes first; those that tasks refer to are archived, and go when nothing refers to them any more.';
	END IF;
	RETURN OLD;
END
$$;
COMMENT ON FUNCTION retry.keep_group() IS 'Trigger: a group that has scenes is not deleted, nor is the group default';

CREATE FUNCTION retry.set_row() RETURNS trigger
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	owner_missing boolean := false;
BEGIN
	IF TG_OP = 'INSERT' THEN
		NEW.resumed_at := NULL;
		NEW.order_ended_at := NULL;
		IF TG_TABLE_NAME = 'scene_group' THEN
			owner_missing := NEW.owner = 0::oid;
		END IF;
	ELSE
		NEW.resumed_at := CASE WHEN OLD.paused AND NOT NEW.paused AND NEW.resume_over > '0' THEN clock_timestamp() ELSE OLD.resumed_at END;
		IF TG_TABLE_NAME = 'scene_group' THEN
			owner_missing := NEW.owner <> OLD.owner AND NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = NEW.owner);
			IF OLD.name = 'default' AND NEW.name <> 'default' THEN
				RAISE EXCEPTION 'the group default cannot be renamed to "%"', NEW.name
					USING ERRCODE = 'dependent_objects_still_exist', HINT = 'Targets without a group use it.';
			END IF;
		ELSIF OLD.group_name = 'default' AND OLD.name = 'default' AND (NEW.group_name <> 'default' OR NEW.name <> 'default') THEN
			RAISE EXCEPTION 'the scene default/default cannot be renamed to "%/%"', NEW.group_name, NEW.name
				USING ERRCODE = 'dependent_objects_still_exist', HINT = 'Targets that are plain URLs use it.';
		END IF;
	END IF;
	/* a number as such may come in a dump, made after the role was dropped */
	IF owner_missing THEN
		RAISE EXCEPTION 'group "%", column "owner": invalid value "%"', NEW.name, NEW.owner
			USING ERRCODE = 'undefined_object', DETAIL = 'It is not a role.', COLUMN = 'owner';
	END IF;
	IF TG_TABLE_NAME = 'scene' THEN
		IF NOT NEW.archived THEN
			NEW.deleted_at := NULL;
		END IF;
		IF TG_OP = 'UPDATE' THEN
			NEW.order_ended_at := CASE WHEN OLD.ordered AND NOT NEW.ordered THEN clock_timestamp() ELSE OLD.order_ended_at END;
		END IF;
	END IF;
	RETURN NEW;
END
$$;
COMMENT ON FUNCTION retry.set_row() IS
'Trigger: sets the columns of groups and scenes that the server sets, and keeps the names of those that are built in';

CREATE FUNCTION retry.check_row() RETURNS trigger
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'retry_check_row';
COMMENT ON FUNCTION retry.check_row() IS
'Trigger: says which column has which value that a constraint does not let in';

CREATE FUNCTION retry.override_changed() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	was		retry.lane_override;
	is_now	retry.lane_override;
BEGIN
	IF TG_RELID <> 'retry.lane_override'::regclass THEN
		RAISE EXCEPTION 'override_changed() is of no use on table "%"', TG_TABLE_NAME
			USING ERRCODE = 'trigger_protocol_violated';
	ELSIF NOT current_setting('check_function_bodies')::boolean AND pg_has_role(session_user, current_user, 'USAGE') THEN
		RETURN NULL;	-- a dump is being restored, which brings the events too
	ELSIF TG_OP = 'TRUNCATE' THEN
		-- which of them were ordered is not told
		UPDATE retry.scene_group SET order_ended_at = clock_timestamp();
		RETURN NULL;
	END IF;
	IF TG_OP <> 'INSERT' THEN
		was := OLD;
	END IF;
	IF TG_OP <> 'DELETE' THEN
		is_now := NEW;
	END IF;
	INSERT INTO retry.event (at, group_id, kind, lane, detail)
	SELECT clock_timestamp(), g.id, k.kind, coalesce(is_now.lane, was.lane), format('by role %I', session_user)
	FROM retry.scene_group g,
		unnest(ARRAY[
			CASE WHEN coalesce(is_now.paused, false) AND NOT coalesce(was.paused, false) THEN 'lane paused' END,
			CASE WHEN coalesce(was.paused, false) AND NOT coalesce(is_now.paused, false) THEN 'lane resumed' END,
			CASE WHEN coalesce(is_now.disabled, false) AND NOT coalesce(was.disabled, false) THEN 'lane disabled' END,
			CASE WHEN coalesce(was.disabled, false) AND NOT coalesce(is_now.disabled, false) THEN 'lane enabled' END,
			CASE WHEN is_now.reset_at > coalesce(was.reset_at, '-infinity') THEN 'lane reset' END]) AS k (kind)
	WHERE g.name = coalesce(is_now.group_name, was.group_name) AND k.kind IS NOT NULL;
	IF was.ordered AND (is_now.ordered IS NOT TRUE OR (is_now.group_name, is_now.lane) <> (was.group_name, was.lane))
			OR NOT is_now.ordered AND was.ordered IS NULL THEN
		UPDATE retry.scene_group g SET order_ended_at = clock_timestamp()
		WHERE g.name IN (was.group_name, is_now.group_name);
	END IF;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION retry.override_changed() IS
'Trigger: notes in retry.events that a lane was paused, disabled or reset, and by whom, and in its group that it is no longer ordered';

CREATE FUNCTION retry.resumed() RETURNS trigger
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'retry_resumed';
COMMENT ON FUNCTION retry.resumed() IS
'Trigger: spreads what has become due while a scene or a group was paused over its resume_over';

CREATE FUNCTION retry.check_callbacks() RETURNS trigger
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'retry_check_callbacks';
COMMENT ON FUNCTION retry.check_callbacks() IS
'Trigger: a scene''s on_success, on_dead and check_target must be targets that can be called, and not the scene itself';

CREATE FUNCTION retry.order_dropped() RETURNS trigger
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'retry_order_dropped';
COMMENT ON FUNCTION retry.order_dropped() IS
'Trigger: dead tasks of a scene that no longer waits for them hold up nothing, also when it waits once more';

CREATE FUNCTION retry.check_secret(group_name text, name text, certificate boolean) RETURNS boolean
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retry_check_secret';
COMMENT ON FUNCTION retry.check_secret(text, text, boolean) IS 'False when a secret is set, but is no key that signs; or, if that is asked for, no client certificate';

CREATE FUNCTION retry.check_scene_secret() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF TG_RELID <> 'retry.scene'::regclass THEN
		RAISE EXCEPTION 'check_scene_secret() is of no use on table "%"', TG_TABLE_NAME
			USING ERRCODE = 'trigger_protocol_violated';
	END IF;
	IF NEW.secret_use = 'webhook' AND NOT retry.check_secret(NEW.group_name, NEW.secret, false) THEN
		RAISE EXCEPTION 'scene "%/%", column "secret": secret "%" is no key that signs', NEW.group_name, NEW.name, NEW.secret
			USING ERRCODE = 'invalid_parameter_value', COLUMN = 'secret',
				HINT = 'A key is written whsec_ and the base64 of 24 to 64 bytes, or whsk_ and that of an ed25519 key, of 32 or 64. Other secrets can be named in headers.';
	ELSIF NOT retry.check_secret(NEW.group_name, NEW.tls_cert, true) THEN
		RAISE EXCEPTION 'scene "%/%", column "tls_cert": secret "%" is no client certificate', NEW.group_name, NEW.name, NEW.tls_cert
			USING ERRCODE = 'invalid_parameter_value', COLUMN = 'tls_cert',
				HINT = 'Set a secret to the certificate and its private key in PEM form.';
	END IF;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION retry.check_scene_secret() IS
'Trigger: a scene''s secret, if it is set already, must be a key that signs, and its client certificate one';

CREATE FUNCTION retry.check_unverified() RETURNS trigger
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF NEW.tls_verify THEN
		NEW.tls_unverified_by := NULL;
		RETURN NEW;
	ELSIF TG_OP = 'UPDATE' AND (NEW.tls_verify, NEW.url, NEW.targets, NEW.tls_pin, NEW.mail ->> 'url')
			IS NOT DISTINCT FROM (OLD.tls_verify, OLD.url, OLD.targets, OLD.tls_pin, OLD.mail ->> 'url') THEN
		NEW.tls_unverified_by := OLD.tls_unverified_by;
		RETURN NEW;
	ELSIF NOT (SELECT r.rolsuper FROM pg_roles r WHERE r.rolname = current_user) THEN
		RAISE EXCEPTION 'scene "%/%", column "tls_verify": role "%" may not send without verifying certificates',
				NEW.group_name, NEW.name, current_user
			USING ERRCODE = 'insufficient_privilege', COLUMN = 'tls_verify',
				DETAIL = 'Only a superuser may set it to false, or change where such a scene sends to.',
				HINT = 'Certificates of an authority of your own are trusted with tls_ca.';
	END IF;
	NEW.tls_unverified_by := current_user;
	RETURN NEW;
END
$$;
COMMENT ON FUNCTION retry.check_unverified() IS
'Trigger: only a superuser may have a scene not verify certificates, and the row says who it was';

CREATE FUNCTION retry.check_limits() RETURNS trigger
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	limits	text[] := '{max_pending,max_lanes,max_enqueue_rate,max_body_size,max_headers,max_headers_size}';
	before	jsonb := CASE TG_OP WHEN 'UPDATE' THEN to_jsonb(OLD) ELSE '{}' END;
	after	jsonb := to_jsonb(NEW);
	changed	text;
BEGIN
	SELECT l INTO changed
	FROM unnest(limits) l
	WHERE coalesce(after -> l, 'null') <> coalesce(before -> l, 'null')
	LIMIT 1;
	IF changed IS NOT NULL
		AND NOT pg_has_role(current_user, (SELECT c.relowner FROM pg_class c WHERE c.oid = TG_RELID), 'USAGE')
	THEN
		RAISE EXCEPTION 'group "%", column "%": role "%" may not change it', NEW.name, changed, current_user
			USING ERRCODE = 'insufficient_privilege', COLUMN = changed,
				HINT = 'Limits of groups are set by superusers and members of the extension''s owner.';
	END IF;
	RETURN NEW;
END
$$;
COMMENT ON FUNCTION retry.check_limits() IS
'Trigger: only superusers and the extension''s owner set what a group may have, whoever may change the rest of it';

CREATE FUNCTION retry.check_scene_headers() RETURNS trigger
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	most	int;
	largest	int;
	n		bigint;
	bytes	bigint;
BEGIN
	SELECT g.max_headers, g.max_headers_size INTO most, largest
	FROM retry.scene_group g
	WHERE g.name = NEW.group_name;
	SELECT count(*), coalesce(sum(octet_length(h.key) + octet_length(h.value)), 0) INTO n, bytes
	FROM jsonb_each_text(NEW.headers) h;
	IF n > most THEN
		RAISE EXCEPTION 'scene "%/%", column "headers": % headers are more than group "%" may have, %',
				NEW.group_name, NEW.name, n, NEW.group_name, most
			USING ERRCODE = 'program_limit_exceeded', COLUMN = 'headers',
				HINT = 'Who administers retry can raise max_headers of the group.';
	ELSIF bytes > largest THEN
		RAISE EXCEPTION 'scene "%/%", column "headers": headers of % bytes are larger than group "%" may have, % bytes',
				NEW.group_name, NEW.name, bytes, NEW.group_name, largest
			USING ERRCODE = 'program_limit_exceeded', COLUMN = 'headers',
				HINT = 'Who administers retry can raise max_headers_size of the group.';
	END IF;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION retry.check_scene_headers() IS
'Trigger: the headers of a scene are no more than its group may have';

CREATE FUNCTION retry.callback_renamed() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	old_names text[] := ARRAY[OLD.group_name || '/' || OLD.name];
	new_name text;
	named_by text;
BEGIN
	IF TG_RELID <> 'retry.scene'::regclass THEN
		RAISE EXCEPTION 'callback_renamed() is of no use on table "%"', TG_TABLE_NAME
			USING ERRCODE = 'trigger_protocol_violated';
	END IF;
	IF OLD.group_name = 'default' THEN
		old_names := old_names || OLD.name;
	END IF;
	IF TG_OP = 'UPDATE' THEN
		IF (NEW.group_name, NEW.name) = (OLD.group_name, OLD.name) THEN
			RETURN NULL;
		END IF;
		new_name := NEW.group_name || '/' || NEW.name;
		UPDATE retry.scene
		SET on_success = CASE WHEN on_success = ANY (old_names) THEN new_name ELSE on_success END,
			on_dead = CASE WHEN on_dead = ANY (old_names) THEN new_name ELSE on_dead END,
			check_target = CASE WHEN check_target = ANY (old_names) THEN new_name ELSE check_target END
		WHERE on_success = ANY (old_names) OR on_dead = ANY (old_names) OR check_target = ANY (old_names);
		RETURN NULL;
	END IF;
	SELECT s.group_name || '/' || s.name INTO named_by FROM retry.scene s
	WHERE s.on_success = ANY (old_names) OR s.on_dead = ANY (old_names) OR s.check_target = ANY (old_names)
	ORDER BY 1 LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION 'scene "%/%" cannot be deleted: it is a callback of scene "%"', OLD.group_name, OLD.name, named_by
			USING ERRCODE = 'dependent_objects_still_exist', HINT = 'Set on_success, on_dead or check_target of that scene to another target, or to null, first.';
	END IF;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION retry.callback_renamed() IS
'Trigger: scenes that name a scene as their callback follow it when it is renamed, and keep it from being deleted';

CREATE FUNCTION retry.audit_row() RETURNS trigger
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'retry_audit_row';
COMMENT ON FUNCTION retry.audit_row() IS
'Trigger: notes in retry.audit_entry who changed a row, and what in it';

CREATE FUNCTION retry.keep_audit() RETURNS trigger
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF TG_OP = 'DELETE' THEN
		IF OLD.at < clock_timestamp() - current_setting('retry.audit_retention', true)::interval THEN
			RETURN OLD;
		END IF;
	END IF;
	RAISE EXCEPTION 'rows of the audit are not changed, nor deleted before retry.audit_retention is over'
		USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Upkeep deletes those that are older.';
END
$$;
COMMENT ON FUNCTION retry.keep_audit() IS
'Trigger: the audit is append-only; what is older than retry.audit_retention may go';

CREATE FUNCTION retry.keep_channel_scene() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	scene	int;
	address	text;
	use		text;
	post	jsonb;
BEGIN
	IF TG_OP <> 'DELETE' THEN
		address := CASE WHEN NEW.kind <> 'email' THEN coalesce(NEW.url, 'https://events.pagerduty.com/v2/enqueue') END;
		use := CASE WHEN NEW.kind IN ('dingtalk', 'feishu', 'pagerduty', 'email') THEN NEW.kind ELSE 'webhook' END;
		post := CASE WHEN NEW.kind = 'email' THEN jsonb_strip_nulls(jsonb_build_object(
			'url', NEW.url, 'user', NEW.mail_user, 'from', NEW.mail_from, 'to', NEW.mail_to)) END;
	END IF;
	IF TG_RELID <> 'retry.channel'::regclass THEN
		RAISE EXCEPTION 'keep_channel_scene() is of no use on table "%"', TG_TABLE_NAME
			USING ERRCODE = 'trigger_protocol_violated';
	ELSIF TG_OP = 'DELETE' THEN
		DELETE FROM retry.scene s WHERE s.id = OLD.scene_id;
		RETURN NULL;
	ELSIF TG_OP = 'INSERT' AND NEW.scene_id IS NOT NULL THEN
		RETURN NULL;	-- a dump is being restored, which brings the scene too
	ELSIF NEW.kind = 'email' THEN
		PERFORM retry.check_mail_client();
	END IF;
	IF TG_OP = 'INSERT' THEN
		INSERT INTO retry.scene AS s (group_name, name, url, success_when, secret, secret_use, mail, lane_by, expires_after, description)
		VALUES (NEW.group_name, 'alarm-' || NEW.name, address, retry.channel_success(NEW.kind), NEW.secret, use, post, 'scene', '1 day',
			format('Messages of channel "%s"', NEW.name))
		ON CONFLICT (group_name, name) DO UPDATE SET url = excluded.url, targets = NULL, success_when = excluded.success_when,
			secret = excluded.secret, secret_use = excluded.secret_use, mail = excluded.mail, archived = false,
			tls_verify = s.tls_verify OR (s.url, s.mail ->> 'url') IS DISTINCT FROM (excluded.url, excluded.mail ->> 'url')
		RETURNING s.id INTO scene;
		UPDATE retry.channel c SET scene_id = scene WHERE c.group_name = NEW.group_name AND c.name = NEW.name;
		RETURN NULL;
	END IF;
	-- this acts as the owner, who may except a scene from verification: what it excepted is the address of before
	UPDATE retry.scene s
	SET group_name = NEW.group_name, name = 'alarm-' || NEW.name, url = address, targets = NULL, success_when = retry.channel_success(NEW.kind),
		secret = NEW.secret, secret_use = use, mail = post,
		tls_verify = s.tls_verify OR (s.url, s.mail ->> 'url') IS DISTINCT FROM (address, post ->> 'url')
	WHERE s.id = NEW.scene_id;
	UPDATE retry.alarm_rule a SET channels = array_replace(a.channels, OLD.name, NEW.name)
	WHERE a.group_name = NEW.group_name AND OLD.name = ANY (a.channels) AND OLD.name <> NEW.name;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION retry.keep_channel_scene() IS
'Trigger: the scene of a channel is made, renamed, moved and deleted with it, and rules follow its name';

CREATE FUNCTION retry.keep_channel() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	named_by	text;
BEGIN
	IF TG_RELID <> 'retry.channel'::regclass THEN
		RAISE EXCEPTION 'keep_channel() is of no use on table "%"', TG_TABLE_NAME
			USING ERRCODE = 'trigger_protocol_violated';
	END IF;
	-- where the group is gone it was renamed, which rules follow
	SELECT min(a.name) INTO named_by FROM retry.alarm_rule a
	JOIN retry.scene_group g ON g.name = a.group_name
	WHERE a.group_name = OLD.group_name AND OLD.name = ANY (a.channels) AND NEW.group_name IS DISTINCT FROM OLD.group_name;
	IF named_by IS NOT NULL THEN
		RAISE EXCEPTION 'channel "%/%" cannot be %: alarm rule "%" names it', OLD.group_name, OLD.name,
			CASE TG_OP WHEN 'DELETE' THEN 'deleted' ELSE 'moved to another group' END, named_by
			USING ERRCODE = 'dependent_objects_still_exist', HINT = 'Take it out of that rule''s channels first.';
	END IF;
	RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END
$$;
COMMENT ON FUNCTION retry.keep_channel() IS 'Trigger: a channel that a rule names is not deleted, nor moved to another group';

CREATE FUNCTION retry.check_alarm_rule() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	missing	text;
BEGIN
	IF TG_RELID <> 'retry.alarm_rule'::regclass THEN
		RAISE EXCEPTION 'check_alarm_rule() is of no use on table "%"', TG_TABLE_NAME
			USING ERRCODE = 'trigger_protocol_violated';
	ELSIF NOT current_setting('check_function_bodies')::boolean AND pg_has_role(session_user, current_user, 'USAGE') THEN
		RETURN NULL;	-- a dump is being restored, channels and scenes may come later
	END IF;
	SELECT min(n.name) INTO missing FROM unnest(NEW.channels) AS n (name)
	WHERE NOT EXISTS (SELECT FROM retry.channel c WHERE c.group_name = NEW.group_name AND c.name = n.name);
	IF missing IS NOT NULL OR array_position(NEW.channels, NULL) IS NOT NULL THEN
		RAISE EXCEPTION 'alarm rule "%/%", column "channels": group "%" has no channel "%"', NEW.group_name, NEW.name, NEW.group_name, missing
			USING ERRCODE = 'undefined_object', COLUMN = 'channels', HINT = 'Channels are rows of retry.channel.';
	ELSIF NEW.scene IS NOT NULL
		AND NOT EXISTS (SELECT FROM retry.scene s WHERE s.group_name = NEW.group_name AND s.name = NEW.scene)
	THEN
		RAISE EXCEPTION 'alarm rule "%/%", column "scene": group "%" has no scene "%"', NEW.group_name, NEW.name, NEW.group_name, NEW.scene
			USING ERRCODE = 'undefined_object', COLUMN = 'scene', HINT = 'Scenes are rows of retry.scene; null stands for all.';
	ELSIF EXISTS (SELECT FROM retry.channel c JOIN retry.scene s ON s.id = c.scene_id
		WHERE s.group_name = NEW.group_name AND s.name = NEW.scene)
	THEN
		RAISE EXCEPTION 'alarm rule "%/%", column "scene": scene "%" is that of a channel', NEW.group_name, NEW.name, NEW.scene
			USING ERRCODE = 'invalid_parameter_value', COLUMN = 'scene', HINT = 'Condition channel watches channels.';
	END IF;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION retry.check_alarm_rule() IS 'Trigger: the channels and the scene that a rule names must be there';

CREATE FUNCTION retry.watched_renamed() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF TG_RELID <> 'retry.scene'::regclass THEN
		RAISE EXCEPTION 'watched_renamed() is of no use on table "%"', TG_TABLE_NAME
			USING ERRCODE = 'trigger_protocol_violated';
	END IF;
	UPDATE retry.alarm_rule a SET scene = NEW.name WHERE a.group_name = NEW.group_name AND a.scene = OLD.name;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION retry.watched_renamed() IS 'Trigger: alarm rules follow the scene that they watch when it is renamed';

CREATE FUNCTION retry.channel_success(kind text) RETURNS jsonpath
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
	SELECT CASE kind
		WHEN 'wecom' THEN '$.errcode == 0'
		WHEN 'dingtalk' THEN '$.errcode == 0'
		WHEN 'feishu' THEN '$.code == 0 || $.StatusCode == 0'
	END::jsonpath
$$;
COMMENT ON FUNCTION retry.channel_success(text) IS
'What an answer must match with which a receiver of this kind takes a message; null: its status says so';

INSERT INTO retry.scene_group (name, description)
VALUES ('default', 'What belongs to no other group');
INSERT INTO retry.scene (group_name, name, description)
VALUES ('default', 'default', 'Tasks whose target is a plain URL');

/*
 * With wal_level = minimal what this transaction takes from a sequence that it
 * made is not logged, nor is what others take next: a crash would have them give
 * the same numbers again.  After setval() the next number is logged.
 */
SELECT setval(pg_get_serial_sequence('retry.scene_group', 'id'), 1), setval(pg_get_serial_sequence('retry.scene', 'id'), 1);

CREATE TRIGGER merge_builtin BEFORE INSERT ON retry.scene_group
	FOR EACH ROW WHEN (NEW.name = 'default') EXECUTE FUNCTION retry.merge_builtin();
CREATE TRIGGER merge_builtin BEFORE INSERT ON retry.scene
	FOR EACH ROW WHEN (NEW.group_name = 'default' AND NEW.name = 'default') EXECUTE FUNCTION retry.merge_builtin();
CREATE TRIGGER archive_scene BEFORE DELETE ON retry.scene
	FOR EACH ROW EXECUTE FUNCTION retry.archive_scene();
CREATE TRIGGER check_function BEFORE INSERT OR UPDATE OF url ON retry.scene
	FOR EACH ROW WHEN (starts_with(NEW.url, 'sql:')) EXECUTE FUNCTION retry.check_function();
-- after: row security has found by then that the row may be written
CREATE TRIGGER check_scene_secret AFTER INSERT OR UPDATE OF secret, secret_use, tls_cert, group_name ON retry.scene
	FOR EACH ROW WHEN (NEW.secret IS NOT NULL OR NEW.tls_cert IS NOT NULL) EXECUTE FUNCTION retry.check_scene_secret();
CREATE TRIGGER check_unverified BEFORE INSERT OR UPDATE ON retry.scene
	FOR EACH ROW WHEN (NOT NEW.tls_verify OR NEW.tls_unverified_by IS NOT NULL) EXECUTE FUNCTION retry.check_unverified();
CREATE TRIGGER check_scene_headers AFTER INSERT OR UPDATE OF headers, group_name ON retry.scene
	FOR EACH ROW WHEN (NEW.headers IS NOT NULL) EXECUTE FUNCTION retry.check_scene_headers();
CREATE TRIGGER check_limits BEFORE INSERT OR UPDATE ON retry.scene_group
	FOR EACH ROW EXECUTE FUNCTION retry.check_limits();
CREATE TRIGGER keep_group BEFORE DELETE ON retry.scene_group
	FOR EACH ROW EXECUTE FUNCTION retry.keep_group();
CREATE TRIGGER check_row BEFORE INSERT OR UPDATE ON retry.scene_group
	FOR EACH ROW EXECUTE FUNCTION retry.check_row();
CREATE TRIGGER check_row BEFORE INSERT OR UPDATE ON retry.scene
	FOR EACH ROW EXECUTE FUNCTION retry.check_row();
CREATE TRIGGER check_row BEFORE INSERT OR UPDATE ON retry.lane_override
	FOR EACH ROW EXECUTE FUNCTION retry.check_row();
CREATE TRIGGER override_changed AFTER INSERT OR UPDATE OR DELETE ON retry.lane_override
	FOR EACH ROW EXECUTE FUNCTION retry.override_changed();
CREATE TRIGGER overrides_truncated AFTER TRUNCATE ON retry.lane_override
	FOR EACH STATEMENT EXECUTE FUNCTION retry.override_changed();
CREATE TRIGGER set_row BEFORE INSERT OR UPDATE ON retry.scene_group
	FOR EACH ROW EXECUTE FUNCTION retry.set_row();
CREATE TRIGGER set_row BEFORE INSERT OR UPDATE ON retry.scene
	FOR EACH ROW EXECUTE FUNCTION retry.set_row();
CREATE TRIGGER resumed AFTER UPDATE ON retry.scene_group
	FOR EACH ROW WHEN (OLD.paused AND NOT NEW.paused) EXECUTE FUNCTION retry.resumed();
CREATE TRIGGER resumed AFTER UPDATE ON retry.scene
	FOR EACH ROW WHEN (OLD.paused AND NOT NEW.paused) EXECUTE FUNCTION retry.resumed();
CREATE TRIGGER order_dropped AFTER UPDATE ON retry.scene
	FOR EACH ROW WHEN (OLD.ordered AND OLD.dead_head = 'block' AND NOT (NEW.ordered AND NEW.dead_head = 'block'))
	EXECUTE FUNCTION retry.order_dropped();
CREATE CONSTRAINT TRIGGER check_callbacks AFTER INSERT OR UPDATE OF on_success, on_dead, check_target ON retry.scene
	DEFERRABLE FOR EACH ROW EXECUTE FUNCTION retry.check_callbacks();
CREATE CONSTRAINT TRIGGER callback_renamed AFTER UPDATE OF group_name, name OR DELETE ON retry.scene
	DEFERRABLE FOR EACH ROW EXECUTE FUNCTION retry.callback_renamed();
CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON retry.scene_group
	FOR EACH STATEMENT EXECUTE FUNCTION retry.config_changed();
CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON retry.scene
	FOR EACH STATEMENT EXECUTE FUNCTION retry.config_changed();
CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON retry.lane_override
	FOR EACH STATEMENT EXECUTE FUNCTION retry.config_changed();
CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON retry.schedule_definition
	FOR EACH STATEMENT EXECUTE FUNCTION retry.config_changed();
CREATE TRIGGER mark_foreign_row BEFORE INSERT OR UPDATE ON retry.schedule_definition
	FOR EACH ROW EXECUTE FUNCTION retry.mark_foreign_schedule();
CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE ON retry.secret
	FOR EACH ROW EXECUTE FUNCTION retry.config_changed();
CREATE TRIGGER config_truncated AFTER TRUNCATE ON retry.secret
	FOR EACH STATEMENT EXECUTE FUNCTION retry.config_changed();
CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON retry.disabled_url
	FOR EACH STATEMENT EXECUTE FUNCTION retry.config_changed();
CREATE TRIGGER config_changed AFTER INSERT ON retry.installation
	FOR EACH STATEMENT EXECUTE FUNCTION retry.config_changed();
CREATE TRIGGER config_changed AFTER INSERT ON retry.purge_request
	FOR EACH STATEMENT EXECUTE FUNCTION retry.config_changed();
CREATE TRIGGER audit_row AFTER INSERT OR UPDATE OR DELETE ON retry.scene_group
	FOR EACH ROW EXECUTE FUNCTION retry.audit_row();
CREATE TRIGGER audit_row AFTER INSERT OR UPDATE OR DELETE ON retry.scene
	FOR EACH ROW EXECUTE FUNCTION retry.audit_row();
CREATE TRIGGER audit_row AFTER INSERT OR UPDATE OR DELETE ON retry.lane_override
	FOR EACH ROW EXECUTE FUNCTION retry.audit_row();
CREATE TRIGGER audit_row AFTER INSERT OR UPDATE OR DELETE ON retry.server
	FOR EACH ROW EXECUTE FUNCTION retry.audit_row();
CREATE TRIGGER audit_row AFTER INSERT OR UPDATE OR DELETE ON retry.group_member
	FOR EACH ROW EXECUTE FUNCTION retry.audit_row();
CREATE TRIGGER audit_row AFTER INSERT OR UPDATE OR DELETE ON retry.schedule_definition
	FOR EACH ROW EXECUTE FUNCTION retry.audit_row();
CREATE TRIGGER audit_row AFTER INSERT ON retry.purge_request
	FOR EACH ROW EXECUTE FUNCTION retry.audit_row();
CREATE TRIGGER audit_row AFTER INSERT ON retry.installation
	FOR EACH ROW WHEN (NEW.adopted) EXECUTE FUNCTION retry.audit_row();
CREATE TRIGGER audit_truncated AFTER TRUNCATE ON retry.scene_group
	FOR EACH STATEMENT EXECUTE FUNCTION retry.audit_row();
CREATE TRIGGER audit_truncated AFTER TRUNCATE ON retry.scene
	FOR EACH STATEMENT EXECUTE FUNCTION retry.audit_row();
CREATE TRIGGER audit_truncated AFTER TRUNCATE ON retry.lane_override
	FOR EACH STATEMENT EXECUTE FUNCTION retry.audit_row();
CREATE TRIGGER audit_truncated AFTER TRUNCATE ON retry.server
	FOR EACH STATEMENT EXECUTE FUNCTION retry.audit_row();
CREATE TRIGGER audit_truncated AFTER TRUNCATE ON retry.group_member
	FOR EACH STATEMENT EXECUTE FUNCTION retry.audit_row();
CREATE TRIGGER check_row BEFORE INSERT OR UPDATE ON retry.channel
	FOR EACH ROW EXECUTE FUNCTION retry.check_row();
CREATE TRIGGER check_row BEFORE INSERT OR UPDATE ON retry.alarm_rule
	FOR EACH ROW EXECUTE FUNCTION retry.check_row();
CREATE TRIGGER keep_channel BEFORE UPDATE OF group_name OR DELETE ON retry.channel
	FOR EACH ROW EXECUTE FUNCTION retry.keep_channel();
CREATE TRIGGER keep_channel_scene AFTER INSERT OR UPDATE OF group_name, name, kind, url, secret, mail_from, mail_to, mail_user OR DELETE ON retry.channel
	FOR EACH ROW EXECUTE FUNCTION retry.keep_channel_scene();
CREATE TRIGGER check_alarm_rule AFTER INSERT OR UPDATE OF group_name, scene, channels ON retry.alarm_rule
	FOR EACH ROW EXECUTE FUNCTION retry.check_alarm_rule();
CREATE TRIGGER watched_renamed AFTER UPDATE OF name ON retry.scene
	FOR EACH ROW WHEN (OLD.name <> NEW.name) EXECUTE FUNCTION retry.watched_renamed();
CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON retry.channel
	FOR EACH STATEMENT EXECUTE FUNCTION retry.config_changed();
CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON retry.alarm_rule
	FOR EACH STATEMENT EXECUTE FUNCTION retry.config_changed();
CREATE TRIGGER audit_row AFTER INSERT OR UPDATE OR DELETE ON retry.channel
	FOR EACH ROW EXECUTE FUNCTION retry.audit_row();
CREATE TRIGGER audit_row AFTER INSERT OR UPDATE OR DELETE ON retry.alarm_rule
	FOR EACH ROW EXECUTE FUNCTION retry.audit_row();
CREATE TRIGGER audit_truncated AFTER TRUNCATE ON retry.channel
	FOR EACH STATEMENT EXECUTE FUNCTION retry.audit_row();
CREATE TRIGGER audit_truncated AFTER TRUNCATE ON retry.alarm_rule
	FOR EACH STATEMENT EXECUTE FUNCTION retry.audit_row();
CREATE TRIGGER keep_audit BEFORE UPDATE OR DELETE ON retry.audit_entry
	FOR EACH ROW EXECUTE FUNCTION retry.keep_audit();
CREATE TRIGGER keep_all BEFORE TRUNCATE ON retry.audit_entry
	FOR EACH STATEMENT EXECUTE FUNCTION retry.keep_audit();
ALTER TABLE retry.scene_group ENABLE ALWAYS TRIGGER merge_builtin;
ALTER TABLE retry.scene ENABLE ALWAYS TRIGGER merge_builtin;
ALTER TABLE retry.scene_group ENABLE ALWAYS TRIGGER config_changed;
ALTER TABLE retry.scene ENABLE ALWAYS TRIGGER config_changed;
ALTER TABLE retry.lane_override ENABLE ALWAYS TRIGGER config_changed;
ALTER TABLE retry.schedule_definition ENABLE ALWAYS TRIGGER config_changed;
ALTER TABLE retry.channel ENABLE ALWAYS TRIGGER config_changed;
ALTER TABLE retry.alarm_rule ENABLE ALWAYS TRIGGER config_changed;
ALTER TABLE retry.secret ENABLE ALWAYS TRIGGER config_changed;
ALTER TABLE retry.secret ENABLE ALWAYS TRIGGER config_truncated;
ALTER TABLE retry.disabled_url ENABLE ALWAYS TRIGGER config_changed;
ALTER TABLE retry.schedule_definition ENABLE ALWAYS TRIGGER mark_foreign_row;

/*
 * Logical replication.  What another installation says of itself must not be
 * believed here: its adoptions would let go what is held, its checkpoints hide
 * what is due.  And a table that is published must still be one from which
 * rows can be deleted, where it has no primary key.
 */
DO $replication$
DECLARE
	t	text;
	s	text;
BEGIN
	FOREACH t IN ARRAY ARRAY['installation', 'place', 'checkpoint_a', 'checkpoint_b', 'purge_request',
		'stat_minute', 'stat_hour', 'stat_day', 'scene_count', 'count_change', 'counted', 'alarm_state'] LOOP
		EXECUTE format('CREATE TRIGGER skip_replicated BEFORE INSERT OR UPDATE OR DELETE ON retry.%I FOR EACH ROW EXECUTE FUNCTION retry.skip_replicated()', t);
		EXECUTE format('ALTER TABLE retry.%I ENABLE REPLICA TRIGGER skip_replicated', t);
	END LOOP;
	FOREACH t IN ARRAY ARRAY['purge_request', 'event', 'audit_entry', 'disabled_url', 'dead_head', 'dead_head_passed',
		'stat_minute', 'stat_hour', 'stat_day', 'count_change'] LOOP
		EXECUTE format('ALTER TABLE retry.%I REPLICA IDENTITY FULL', t);
	END LOOP;
	FOR n IN 0 .. 32 LOOP
		s := to_char(n, 'FM00');
		EXECUTE format('ALTER TABLE retry.task_%s REPLICA IDENTITY USING INDEX task_%1$s_id', s);
		EXECUTE format('ALTER TABLE retry.attempt_%s REPLICA IDENTITY USING INDEX attempt_%1$s_no', s);
		EXECUTE format('ALTER TABLE retry.signal_%s REPLICA IDENTITY FULL', s);
	END LOOP;
END
$replication$;

SELECT pg_extension_config_dump('retry.scene_group', '');
SELECT pg_extension_config_dump('retry.group_member', '');
SELECT pg_extension_config_dump('retry.scene', '');
SELECT pg_extension_config_dump('retry.lane_override', '');
SELECT pg_extension_config_dump('retry.server', '');
SELECT pg_extension_config_dump('retry.global_branch', '');
SELECT pg_extension_config_dump('retry.channel', '');
SELECT pg_extension_config_dump('retry.alarm_rule', '');
SELECT pg_extension_config_dump('retry.alarm_rule_id_seq', '');
SELECT pg_extension_config_dump('retry.scene_group_id_seq', '');
SELECT pg_extension_config_dump('retry.scene_id_seq', '');
SELECT pg_extension_config_dump('retry.dead_letter', '');
SELECT pg_extension_config_dump('retry.replayed', '');
SELECT pg_extension_config_dump('retry.dead_head', '');
SELECT pg_extension_config_dump('retry.dead_head_passed', '');
SELECT pg_extension_config_dump('retry.key', '');
SELECT pg_extension_config_dump('retry.consumed', '');
SELECT pg_extension_config_dump('retry.barrier_note', '');
SELECT pg_extension_config_dump('retry.global_transaction', '');
SELECT pg_extension_config_dump('retry.global_decision', '');
SELECT pg_extension_config_dump('retry.global_message', '');
SELECT pg_extension_config_dump('retry.global_operation', '');
SELECT pg_extension_config_dump('retry.global_outcome', '');
SELECT pg_extension_config_dump('retry.event', '');
SELECT pg_extension_config_dump('retry.audit_entry', '');
SELECT pg_extension_config_dump('retry.disabled_url', '');
SELECT pg_extension_config_dump('retry.stat_minute', '');
SELECT pg_extension_config_dump('retry.stat_hour', '');
SELECT pg_extension_config_dump('retry.stat_day', '');
SELECT pg_extension_config_dump('retry.schedule_definition', '');
SELECT pg_extension_config_dump('retry.schedule_run', '');
SELECT pg_extension_config_dump('retry.schedule_definition_id_seq', '');

/*
 * 5. Enqueue
 */

CREATE FUNCTION retry.enqueue(
	target			text,
	payload			jsonb DEFAULT NULL,
	key				text DEFAULT NULL,
	delay			interval DEFAULT NULL,
	due_at			timestamptz DEFAULT NULL,
	lane			text DEFAULT NULL,
	url				text DEFAULT NULL,
	method			text DEFAULT NULL,
	headers			jsonb DEFAULT NULL,
	body			bytea DEFAULT NULL,
	content_type	text DEFAULT NULL,
	expires_at		timestamptz DEFAULT NULL,
	max_attempts	int DEFAULT NULL,
	reference		text DEFAULT NULL,
	timeout			interval DEFAULT NULL,
	backoff			retry.backoff DEFAULT NULL,
	on_success		text DEFAULT NULL,
	on_dead			text DEFAULT NULL,
	on_conflict		text DEFAULT 'return'
) RETURNS uuid
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retry_enqueue';
COMMENT ON FUNCTION retry.enqueue IS
'Stores one task in the caller''s transaction; after the commit it is called until it has an outcome. Returns the task''s id. target: an absolute http(s) URL, scene, group/scene, or sql:schema.function; payload, or body and content_type: what is sent; key: only one live task of the scene has it, and the receiver sees it; delay or due_at: not before then; lane: with which others it shares its fate; url, method, timeout, max_attempts, backoff, on_success, on_dead: in place of the scene''s; headers: besides the scene''s; expires_at: no attempt starts later; reference: to search by; on_conflict, when a live task has the key: return its id, error, or replace it while it is pending';

CREATE FUNCTION retry.enqueue_many(
	target			text,
	payloads		jsonb[],
	keys			text[] DEFAULT NULL,
	delay			interval DEFAULT NULL,
	due_at			timestamptz DEFAULT NULL,
	lane			text DEFAULT NULL,
	url				text DEFAULT NULL,
	method			text DEFAULT NULL,
	headers			jsonb DEFAULT NULL,
	content_type	text DEFAULT NULL,
	expires_at		timestamptz DEFAULT NULL,
	max_attempts	int DEFAULT NULL,
	reference		text DEFAULT NULL,
	timeout			interval DEFAULT NULL,
	backoff			retry.backoff DEFAULT NULL,
	on_success		text DEFAULT NULL,
	on_dead			text DEFAULT NULL,
	on_conflict		text DEFAULT 'return'
) RETURNS SETOF uuid
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retry_enqueue_many';
COMMENT ON FUNCTION retry.enqueue_many IS
'As retry.enqueue(), for an array of payloads at once; returns the ids in the order of the payloads';

CREATE FUNCTION retry.prepare(
	target			text,
	payload			jsonb DEFAULT NULL,
	key				text DEFAULT NULL,
	delay			interval DEFAULT NULL,
	due_at			timestamptz DEFAULT NULL,
	lane			text DEFAULT NULL,
	url				text DEFAULT NULL,
	method			text DEFAULT NULL,
	headers			jsonb DEFAULT NULL,
	body			bytea DEFAULT NULL,
	content_type	text DEFAULT NULL,
	expires_at		timestamptz DEFAULT NULL,
	max_attempts	int DEFAULT NULL,
	reference		text DEFAULT NULL,
	timeout			interval DEFAULT NULL,
	backoff			retry.backoff DEFAULT NULL,
	on_success		text DEFAULT NULL,
	on_dead			text DEFAULT NULL,
	on_conflict		text DEFAULT 'return',
	check_target	text DEFAULT NULL,
	check_after		interval DEFAULT NULL,
	check_every		interval DEFAULT NULL,
	check_limit		int DEFAULT NULL,
	undecided		text DEFAULT NULL
) RETURNS uuid
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retry_prepare';
COMMENT ON FUNCTION retry.prepare IS
'As retry.enqueue(), but what it stores is a message that is delivered only when retry.commit() is called with its id, which this returns. While nobody decides, check_target (null: the scene''s) is asked: first after check_after, then every check_every, at most check_limit times, then undecided (commit or rollback) holds; null: as the scene says';

CREATE FUNCTION retry.commit(id uuid) RETURNS boolean
LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retry_commit';
COMMENT ON FUNCTION retry.commit(uuid) IS
'Decides that a message of retry.prepare() is delivered: it becomes a task of that id in the caller''s transaction; or that a TCC transaction is confirmed, as soon as all its tries are done. False when that was decided or asked for before; an error when it was rolled back, and for a saga, which commits by itself';

CREATE FUNCTION retry.rollback(id uuid) RETURNS boolean
LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retry_rollback';
COMMENT ON FUNCTION retry.rollback(uuid) IS
'Decides that a message of retry.prepare() is never delivered, or that a saga or TCC transaction is undone: what has begun is compensated or cancelled. False when that was decided before; an error when it was committed';

CREATE FUNCTION retry.saga(
	steps			jsonb,
	payload			jsonb DEFAULT NULL,
	timeout			interval DEFAULT NULL,
	concurrent		boolean DEFAULT false,
	key				text DEFAULT NULL,
	reference		text DEFAULT NULL
) RETURNS uuid
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retry_saga';
COMMENT ON FUNCTION retry.saga IS
'Begins a saga and returns its gid. steps is an array of objects: name, action and compensate (targets), payload (else that of the saga), needs (names of steps that must be done before; else the step before, or with concurrent none), and headers, timeout, backoff, max_attempts, lane, method, content_type, reference as of retry.enqueue(). When an action fails, or timeout is over, what has begun is compensated in reverse, until that succeeds';

CREATE FUNCTION retry.tcc_begin(
	timeout			interval DEFAULT '1 min',
	scene			text DEFAULT 'default',
	key				text DEFAULT NULL,
	reference		text DEFAULT NULL
) RETURNS uuid
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retry_tcc_begin';
COMMENT ON FUNCTION retry.tcc_begin IS
'Begins a TCC transaction (try, confirm, cancel) and returns its gid. It is cancelled when timeout is over and nothing is decided. scene: whose group says who may decide';

CREATE FUNCTION retry.tcc_branch(
	gid				uuid,
	name			text,
	try				text,
	confirm			text,
	cancel			text,
	payload			jsonb DEFAULT NULL,
	options			jsonb DEFAULT NULL
) RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retry_tcc_branch';
COMMENT ON FUNCTION retry.tcc_branch IS
'Gives a TCC transaction a branch, whose try (a target; null: the caller has tried itself) begins at once. confirm or cancel follows from the decision, and is repeated until it succeeds. options: headers, timeout, backoff, max_attempts (of the try), lane, method, content_type, reference as of retry.enqueue()';

CREATE FUNCTION retry.tcc_commit(gid uuid) RETURNS boolean
LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retry_commit';
COMMENT ON FUNCTION retry.tcc_commit(uuid) IS 'As retry.commit()';

CREATE FUNCTION retry.tcc_rollback(gid uuid) RETURNS boolean
LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retry_rollback';
COMMENT ON FUNCTION retry.tcc_rollback(uuid) IS 'As retry.rollback()';

CREATE FUNCTION retry.settle(gid uuid, branch text, op text, done boolean DEFAULT true) RETURNS boolean
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retry_settle';
COMMENT ON FUNCTION retry.settle(uuid, text, text, boolean) IS
'Regards an operation of a global transaction as done, or (an action or a try) as failed, whatever its task says: that is cancelled, and the transaction goes on. For what was done by hand. False: it has ended already';

CREATE FUNCTION retry.twophase_begin(
	scene			text DEFAULT 'default',
	timeout			interval DEFAULT '1 min',
	reference		text DEFAULT NULL
) RETURNS uuid
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retry_twophase_begin';
COMMENT ON FUNCTION retry.twophase_begin IS
'Begins a two-phase commit over several PostgreSQL servers and returns its id, over which retry.commit() or retry.rollback() decide. scene: whose group''s servers it is about, and by whose rules it is finished; timeout: it is rolled back when nothing was decided so long after; reference: to search by';

CREATE FUNCTION retry.twophase_branch(gid uuid, server text) RETURNS text
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retry_twophase_branch';
COMMENT ON FUNCTION retry.twophase_branch(uuid, text) IS
'A new branch of a two-phase commit: returns the name to be given to PREPARE TRANSACTION on that server, which is a row of retry.server';

CREATE FUNCTION retry.settle_branch(task jsonb) RETURNS text
LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retry_settle_branch';
COMMENT ON FUNCTION retry.settle_branch(jsonb) IS
'Target of the tasks of a two-phase commit: does COMMIT PREPARED or ROLLBACK PREPARED on the server of a branch, as is decided, and says what it found';

CREATE FUNCTION retry.settle_server(task jsonb) RETURNS text
LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retry_settle_server';
COMMENT ON FUNCTION retry.settle_server(jsonb) IS
'Looks for transactions of this database that are prepared on a server, members server and group (default) of its argument, and commits or rolls back those over which is decided, or can never be decided. For the group''s owner; a target for retry.schedule()';

CREATE FUNCTION retry.in_doubt(server text DEFAULT NULL, group_name text DEFAULT 'default')
RETURNS TABLE (
	on_server text, name text, state text, gid uuid, branch int,
	prepared_at timestamptz, owner text, locked text[], waiting int[], error text)
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retry_in_doubt';
COMMENT ON FUNCTION retry.in_doubt(text, text) IS
'What is prepared on a server (null: on all of the group) under names of two-phase commits. state: open (who registered it has not ended), undecided, to be committed, to be rolled back, orphan (nobody can decide any more: retry.settle_server() rolls it back), prepared again (after it was committed), foreign (of another database); locked: tables that it holds locks of; waiting: processes there that wait for it; error: why the server could not be asked. For the group''s owner';

CREATE FUNCTION retry.digest_key(target text, payload jsonb) RETURNS text
LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'retry_digest_key';
COMMENT ON FUNCTION retry.digest_key(text, jsonb) IS
'The key that a task with this target and payload gets in a scene with generate_key: SHA-256, in hexadecimal';

CREATE TYPE retry.call_result AS
(
	state			retry.task_state,
	http_status		int,
	response		bytea,
	attempts		int,
	task_id			uuid,
	error			text
);
COMMENT ON TYPE retry.call_result IS 'What became of a retry.call()';
COMMENT ON COLUMN retry.call_result.state IS 'succeeded, or dead, or pending when a task was enqueued';
COMMENT ON COLUMN retry.call_result.http_status IS 'Status of the last answer in the session; null when there was none';
COMMENT ON COLUMN retry.call_result.response IS 'First bytes of that answer''s body, at most retry.max_response_bytes';
COMMENT ON COLUMN retry.call_result.attempts IS 'Attempts made in the session';
COMMENT ON COLUMN retry.call_result.task_id IS 'The task, when one was enqueued';
COMMENT ON COLUMN retry.call_result.error IS 'What went wrong at the last attempt';

CREATE FUNCTION retry.call(
	target			text,
	payload			jsonb DEFAULT NULL,
	key				text DEFAULT NULL,
	lane			text DEFAULT NULL,
	url				text DEFAULT NULL,
	method			text DEFAULT NULL,
	headers			jsonb DEFAULT NULL,
	body			bytea DEFAULT NULL,
	content_type	text DEFAULT NULL,
	expires_at		timestamptz DEFAULT NULL,
	max_attempts	int DEFAULT NULL,
	reference		text DEFAULT NULL,
	timeout			interval DEFAULT NULL,
	backoff			retry.backoff DEFAULT NULL,
	on_success		text DEFAULT NULL,
	on_dead			text DEFAULT NULL,
	on_conflict		text DEFAULT 'return',
	mode			text DEFAULT 'local_remote',
	local_attempts	int DEFAULT 3,
	local_interval	interval DEFAULT '2 s'
) RETURNS retry.call_result
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retry_call';
COMMENT ON FUNCTION retry.call IS
'Calls the target now, in the session, and waits for the answer. mode: local, nothing is stored; local_remote, a task is enqueued when all attempts here have failed; remote, as retry.enqueue()';

/*
 * 6. Administer
 */

CREATE FUNCTION retry.grant(role regrole, group_name text) RETURNS void
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retry_grant';
COMMENT ON FUNCTION retry.grant(regrole, text) IS
'Lets a role, and its members, use a group: enqueue into it, see and administer its tasks. For members of the group''s owner';

CREATE FUNCTION retry.revoke(role regrole, group_name text) RETURNS void
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retry_revoke';
COMMENT ON FUNCTION retry.revoke(regrole, text) IS 'Takes back what retry.grant() gave';

CREATE FUNCTION retry.set_secret(
	name		text,
	value		text,
	group_name	text DEFAULT 'default',
	overlap		interval DEFAULT '24 h'
) RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retry_set_secret';
COMMENT ON FUNCTION retry.set_secret(text, text, text, interval) IS
'Sets a secret of a group; the value before goes on signing, besides the new one, for the time of the overlap. For members of the group''s owner. Pass the value as a bound parameter';

CREATE FUNCTION retry.drop_secret(name text, group_name text DEFAULT 'default') RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retry_drop_secret';
COMMENT ON FUNCTION retry.drop_secret(text, text) IS
'Deletes all values of a secret; tasks of scenes that name it wait until it is set again. For members of the group''s owner';

CREATE FUNCTION retry.cancel(id uuid) RETURNS boolean
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retry_cancel';
COMMENT ON FUNCTION retry.cancel(uuid) IS
'Asks that a task be attempted no more. True: the request is stored (an attempt that is under way and ends the task still counts); false: it had already finished';

CREATE FUNCTION retry.run_now(id uuid) RETURNS boolean
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retry_run_now';
COMMENT ON FUNCTION retry.run_now(uuid) IS
'Asks that a task''s next attempt be made now, whatever its due time. False: it had already finished';

CREATE FUNCTION retry.replay(id uuid) RETURNS uuid
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retry_replay';
COMMENT ON FUNCTION retry.replay(uuid) IS
'Enqueues a finished task again, as a new task with its own attempts; the receiver sees the original''s Idempotency-Key and webhook-id';

CREATE FUNCTION retry.replay_dead(
	target			text DEFAULT NULL,
	since			timestamptz DEFAULT NULL,
	until			timestamptz DEFAULT NULL,
	reference		text DEFAULT NULL,
	spread			interval DEFAULT '0',
	group_name		text DEFAULT NULL,
	key_prefix		text DEFAULT NULL,
	error			text DEFAULT NULL,
	reason			retry.dead_reason DEFAULT NULL
) RETURNS bigint
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retry_replay_dead';
COMMENT ON FUNCTION retry.replay_dead IS
'Replays the dead letters that the filters let through, each only once, their due times spread over the given interval; returns how many. target: scene or group/scene; since and until: when they died; group_name: all scenes of a group; error: a LIKE pattern for the last error';

CREATE FUNCTION retry.step_over(id uuid) RETURNS boolean
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retry_step_over';
COMMENT ON FUNCTION retry.step_over(uuid) IS
'Lets an ordered lane go on that waits at a dead task (scene.dead_head = block): of the dead task, or of any of its replays. False: it holds up nothing';

CREATE FUNCTION retry.cancel_where(
	target			text DEFAULT NULL,
	since			timestamptz DEFAULT NULL,
	until			timestamptz DEFAULT NULL,
	reference		text DEFAULT NULL,
	group_name		text DEFAULT NULL,
	key_prefix		text DEFAULT NULL,
	error			text DEFAULT NULL
) RETURNS bigint
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retry_cancel_where';
COMMENT ON FUNCTION retry.cancel_where IS
'As retry.cancel(), for all unfinished tasks that the filters let through and the current role may administer; returns how many. target: scene or group/scene; since and until: when they were enqueued; group_name: all scenes of a group; error: a LIKE pattern for the last attempt''s error';

CREATE FUNCTION retry.run_now_where(
	target			text DEFAULT NULL,
	since			timestamptz DEFAULT NULL,
	until			timestamptz DEFAULT NULL,
	reference		text DEFAULT NULL,
	spread			interval DEFAULT '0',
	group_name		text DEFAULT NULL,
	key_prefix		text DEFAULT NULL,
	error			text DEFAULT NULL
) RETURNS bigint
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retry_run_now_where';
COMMENT ON FUNCTION retry.run_now_where IS
'As retry.run_now(), for all unfinished tasks that the filters let through and the current role may administer, spread evenly over the given interval; returns how many. target: scene or group/scene; since and until: when they were enqueued; group_name: all scenes of a group; error: a LIKE pattern for the last attempt''s error';

CREATE FUNCTION retry.amend(id uuid, changes jsonb) RETURNS boolean
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retry_amend';
COMMENT ON FUNCTION retry.amend(uuid, jsonb) IS
'Changes an unfinished task from its next attempt on: max_attempts, expires_at, backoff, timeout, url, method, headers, payload or body (base64), content_type; null takes the task''s own value away. False: it had already finished';

CREATE FUNCTION retry.amend_where(
	changes			jsonb,
	target			text DEFAULT NULL,
	since			timestamptz DEFAULT NULL,
	until			timestamptz DEFAULT NULL,
	reference		text DEFAULT NULL,
	group_name		text DEFAULT NULL,
	key_prefix		text DEFAULT NULL,
	error			text DEFAULT NULL
) RETURNS bigint
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retry_amend_where';
COMMENT ON FUNCTION retry.amend_where IS
'As retry.amend(), for all unfinished tasks that the filters let through and the current role may administer; returns how many. The filters are those of retry.cancel_where()';

CREATE FUNCTION retry.disable_url(scene text, url text, reason text DEFAULT NULL) RETURNS boolean
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retry_disable_url';
COMMENT ON FUNCTION retry.disable_url(text, text, text) IS
'Sends nothing more to a URL in a scene, as after an answer 410; its tasks are held. False: it is disabled already';

CREATE FUNCTION retry.enable_url(scene text, url text) RETURNS boolean
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retry_enable_url';
COMMENT ON FUNCTION retry.enable_url(text, text) IS
'Lets the tasks go that are held since their URL is disabled in their scene. False: it is not disabled';

CREATE FUNCTION retry.wait(id uuid, timeout interval DEFAULT '30 s') RETURNS retry.task_state
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retry_wait';
COMMENT ON FUNCTION retry.wait(uuid, interval) IS
'Waits until a task has finished or the time is over; returns its state then';

CREATE FUNCTION retry.purge(before timestamptz) RETURNS void
LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$ INSERT INTO retry.purge_request (before) VALUES (before) $$;
COMMENT ON FUNCTION retry.purge(timestamptz) IS
'Asks for finished history older than a moment to be dropped, leaf by leaf (a leaf holds a day); the upkeep does it, this only stores the request';

CREATE FUNCTION retry.reset_lane(group_name text, lane text) RETURNS void
LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
	INSERT INTO retry.lane_override AS o (group_name, lane, reset_at)
	VALUES (reset_lane.group_name, reset_lane.lane, clock_timestamp())
	ON CONFLICT ON CONSTRAINT lane_override_pkey
	DO UPDATE SET reset_at = greatest(clock_timestamp(), o.reset_at + interval '1 us')
$$;
COMMENT ON FUNCTION retry.reset_lane(text, text) IS
'Closes a lane''s breaker and forgets what its endpoint asked for: it is sent to at once, as if nothing had happened. The short form of setting reset_at in retry.lane_override, with the caller''s rights on that table: members of the group''s owner have them';

CREATE FUNCTION retry.drop_scene(scene text) RETURNS boolean
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retry_drop_scene';
COMMENT ON FUNCTION retry.drop_scene(text) IS
'Deletes a scene, as DELETE does. For members of the group''s owner. False: tasks refer to it, so it is archived, and goes when none does';

CREATE FUNCTION retry.drop_lane_override(group_name text, lane text) RETURNS boolean
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retry_drop_lane_override';
COMMENT ON FUNCTION retry.drop_lane_override(text, text) IS
'Deletes the row of retry.lane_override for a lane, as DELETE does. For members of the group''s owner. False: there is none';

CREATE FUNCTION retry.drop_channel(group_name text, name text) RETURNS boolean
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retry_drop_channel';
COMMENT ON FUNCTION retry.drop_channel(text, text) IS
'Deletes a channel for alarms and its scene, as DELETE does. For members of the group''s owner. False: there is none';

CREATE FUNCTION retry.drop_alarm_rule(group_name text, name text) RETURNS boolean
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retry_drop_alarm_rule';
COMMENT ON FUNCTION retry.drop_alarm_rule(text, text) IS
'Deletes a rule for alarms, as DELETE does; nobody is told that what it said is over. For members of the group''s owner. False: there is none';

CREATE PROCEDURE retry.maintain()
LANGUAGE C AS 'MODULE_PATHNAME', 'retry_maintain';
COMMENT ON PROCEDURE retry.maintain() IS
'Does at once what upkeep does every hour (retention, keys, dead letters, noted messages, purge requests), in a worker of its own that commits in pieces, and waits for it';

CREATE FUNCTION retry.adopt() RETURNS void
LANGUAGE sql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
	INSERT INTO retry.installation (database, adopted)
	SELECT oid, true FROM pg_database WHERE datname = current_database()
$$;
COMMENT ON FUNCTION retry.adopt() IS
'Lets a restored, replicated or copied database send the tasks that came with it';

CREATE FUNCTION retry.once(consumer text, message_id text) RETURNS boolean
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retry_once';
COMMENT ON FUNCTION retry.once(text, text) IS
'For receivers that live in PostgreSQL: true for the first call with a message in a transaction that commits, false for all after. Each role has consumers of its own';

CREATE FUNCTION retry.barrier(gid uuid, branch text, op text) RETURNS boolean
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retry_barrier';
COMMENT ON FUNCTION retry.barrier(uuid, text, text) IS
'For participants in global transactions that live in PostgreSQL: true when the operation (try, confirm, cancel, action, compensate, message) of the branch is to be done, in the caller''s transaction; false when it was done before, when there is nothing to undo because the try or action never came, and when it comes after it was undone';

CREATE FUNCTION retry.verify_signature(
	secret		text,
	id			text,
	"timestamp"	text,
	body		bytea,
	signature	text,
	tolerance	interval DEFAULT '5 min'
) RETURNS boolean
LANGUAGE C VOLATILE PARALLEL SAFE AS 'MODULE_PATHNAME', 'retry_verify_signature';
COMMENT ON FUNCTION retry.verify_signature(text, text, text, bytea, text, interval) IS
'For receivers: true when one of the signatures in header webhook-signature is by this key, and webhook-timestamp is within the tolerance of now; false for whatever else is given, nulls too';

CREATE FUNCTION retry.verify_signature(
	secrets		text[],
	id			text,
	"timestamp"	text,
	body		bytea,
	signature	text,
	tolerance	interval DEFAULT '5 min'
) RETURNS boolean
LANGUAGE C VOLATILE PARALLEL SAFE AS 'MODULE_PATHNAME', 'retry_verify_signature_any';
COMMENT ON FUNCTION retry.verify_signature(text[], text, text, bytea, text, interval) IS
'The same, with several keys of which any will do';

CREATE FUNCTION retry.public_key(key text) RETURNS text
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'retry_public_key';
COMMENT ON FUNCTION retry.public_key(text) IS
'The public key (whpk_) that belongs to a private one of ed25519 (whsk_): what receivers verify with';

CREATE FUNCTION retry.schedule(
	name			text,
	cron			text,
	target			text,
	payload			jsonb DEFAULT NULL,
	missed			text DEFAULT 'once',
	tz				text DEFAULT NULL,
	options			jsonb DEFAULT NULL,
	active			boolean DEFAULT true
) RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'retry_schedule';
COMMENT ON FUNCTION retry.schedule IS
'Enqueues a task at every moment that a cron expression names, as the role that calls; again with the same name: replaces the definition. missed: what becomes of runs that could not be made in time (skip, once, all)';

CREATE FUNCTION retry.unschedule(name text) RETURNS boolean
LANGUAGE C VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'retry_unschedule';
COMMENT ON FUNCTION retry.unschedule(text) IS
'Ends a schedule of the current role; tasks that it has enqueued stay. False: there is none of that name';

CREATE FUNCTION retry.run_schedules(at timestamptz DEFAULT NULL) RETURNS bigint
LANGUAGE C VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'retry_run_schedules';
COMMENT ON FUNCTION retry.run_schedules(timestamptz) IS
'Enqueues the runs that are due of schedules of roles that the current role is a member of, and returns how many; workers and jobs of pg_cron call it. at: as if it were that moment, for the extension''s owner';

CREATE FUNCTION retry.cron_next(cron text, after timestamptz DEFAULT now(), tz text DEFAULT NULL) RETURNS timestamptz
LANGUAGE C STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'retry_cron_next_sql';
COMMENT ON FUNCTION retry.cron_next(text, timestamptz, text) IS
'The first moment after another that a cron expression names';

/*
 * Groups and scenes as one document, to be kept in version control, moved from
 * one database to another, and read by people.  The columns are those that the
 * tables have; a column that a later version adds travels by itself.
 */
CREATE FUNCTION retry.config_columns(config_table regclass)
RETURNS TABLE (name name, type oid, shape text)
LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
	SELECT a.attname, a.atttypid,
		CASE
			WHEN a.atttypid = 'boolean'::regtype THEN 'boolean'
			WHEN a.atttypid IN ('smallint'::regtype, 'integer'::regtype, 'bigint'::regtype, 'real'::regtype,
				'double precision'::regtype, 'numeric'::regtype) THEN 'number'
			WHEN a.atttypid IN ('json'::regtype, 'jsonb'::regtype) THEN 'any'
			WHEN t.typcategory = 'A' THEN 'array'
			ELSE 'string'
		END
	FROM pg_attribute a
	JOIN pg_type t ON t.oid = a.atttypid
	WHERE a.attrelid = config_table AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
		AND a.attname NOT IN ('id', 'group_name', 'tls_unverified_by', 'resumed_at', 'order_ended_at', 'deleted_at', 'created_at', 'reset_at',
			'scene_id', 'mail')
$$;
COMMENT ON FUNCTION retry.config_columns(regclass) IS
'Columns of a configuration table that export_config() and import_config() carry, and the kind of JSON value that each is';

CREATE FUNCTION retry.export_config(group_name text DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp SET IntervalStyle = 'postgres' AS $$
DECLARE
	of_groups	text[] := ARRAY(SELECT c.name FROM retry.config_columns('retry.scene_group') c);
	of_scenes	text[] := ARRAY(SELECT c.name FROM retry.config_columns('retry.scene') c);
	of_lanes	text[] := ARRAY(SELECT c.name FROM retry.config_columns('retry.lane_override') c);
	of_channels	text[] := ARRAY(SELECT c.name FROM retry.config_columns('retry.channel') c);
	of_rules	text[] := ARRAY(SELECT c.name FROM retry.config_columns('retry.alarm_rule') c);
	groups		jsonb;
BEGIN
	SELECT jsonb_agg((
		SELECT jsonb_object_agg(m.key, m.value) FROM jsonb_each(to_jsonb(g)) m WHERE m.key = ANY (of_groups))
		|| jsonb_build_object('scenes', coalesce((
			SELECT jsonb_agg((
				SELECT jsonb_object_agg(m.key, m.value) FROM jsonb_each(to_jsonb(s)) m WHERE m.key = ANY (of_scenes))
				ORDER BY s.name COLLATE "C")
			FROM retry.scene s
			WHERE s.group_name = g.name AND s.deleted_at IS NULL), '[]'))
		|| coalesce((
			SELECT jsonb_build_object('lane_overrides', jsonb_agg((
				SELECT jsonb_object_agg(m.key, m.value) FROM jsonb_each(to_jsonb(o)) m WHERE m.key = ANY (of_lanes))
				ORDER BY o.lane COLLATE "C"))
			FROM retry.lane_override o
			WHERE o.group_name = g.name HAVING count(*) > 0), '{}')
		|| coalesce((
			SELECT jsonb_build_object('channels', jsonb_agg((
				SELECT jsonb_object_agg(m.key, m.value) FROM jsonb_each(to_jsonb(c)) m WHERE m.key = ANY (of_channels))
				ORDER BY c.name COLLATE "C"))
			FROM retry.channel c
			WHERE c.group_name = g.name HAVING count(*) > 0), '{}')
		|| coalesce((
			SELECT jsonb_build_object('alarm_rules', jsonb_agg((
				SELECT jsonb_object_agg(m.key, m.value) FROM jsonb_each(to_jsonb(a)) m WHERE m.key = ANY (of_rules))
				ORDER BY a.name COLLATE "C"))
			FROM retry.alarm_rule a
			WHERE a.group_name = g.name HAVING count(*) > 0), '{}')
		ORDER BY g.name COLLATE "C")
	INTO groups
	FROM retry.scene_group g
	WHERE g.name = export_config.group_name OR export_config.group_name IS NULL;
	IF groups IS NULL AND group_name IS NOT NULL THEN
		RAISE EXCEPTION 'group "%" does not exist', group_name
			USING ERRCODE = 'undefined_object', HINT = 'Groups are rows of retry.scene_group.';
	END IF;
	RETURN jsonb_build_object('retry', '1.0', 'groups', coalesce(groups, '[]'));
END
$$;
COMMENT ON FUNCTION retry.export_config(text) IS
'One group, or all that the current role sees, with their scenes, overrides of lanes, channels and rules for alarms as one document, which retry.import_config() takes; scenes that were deleted and are only archived yet are left out';

CREATE FUNCTION retry.check_config_members(what text, given jsonb, config_table regclass, also text[])
RETURNS void
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	member	record;
	name_column	text := CASE WHEN config_table = 'retry.lane_override'::regclass THEN 'lane' ELSE 'name' END;
BEGIN
	IF coalesce(jsonb_typeof(given), '') <> 'object' THEN
		RAISE EXCEPTION '% is not an object but %', what, coalesce(left(given::text, 100), 'nothing')
			USING ERRCODE = 'invalid_parameter_value';
	END IF;
	FOR member IN
		SELECT m.key, m.value, c.shape, jsonb_typeof(m.value) AS type
		FROM jsonb_each(given) m
		LEFT JOIN retry.config_columns(config_table) c ON c.name = m.key
		WHERE NOT m.key = ANY (also)
		ORDER BY m.key
	LOOP
		IF member.shape IS NULL THEN
			RAISE EXCEPTION '%: unknown member "%", value %', what, member.key, left(member.value::text, 100)
				USING ERRCODE = 'invalid_parameter_value',
					HINT = format('Known are %s.', (
						SELECT string_agg(k, ', ' ORDER BY k)
						FROM (SELECT c.name FROM retry.config_columns(config_table) c UNION SELECT unnest(also)) AS x (k)));
		END IF;
		IF member.shape <> 'any' AND member.type NOT IN (member.shape, 'null')
			OR member.shape = 'array' AND jsonb_path_exists(member.value, 'strict $[*] ? (@.type() != "string")', '{}', true)
		THEN
			RAISE EXCEPTION '%, column "%": a JSON % is needed, not %', what, member.key,
				CASE member.shape WHEN 'array' THEN 'array of strings' ELSE member.shape END, left(member.value::text, 100)
				USING ERRCODE = 'invalid_parameter_value', COLUMN = member.key;
		END IF;
	END LOOP;
	IF coalesce(jsonb_typeof(given -> name_column), '') <> 'string' THEN
		RAISE EXCEPTION '% has no %', what, name_column
			USING ERRCODE = 'invalid_parameter_value';
	END IF;
END
$$;
COMMENT ON FUNCTION retry.check_config_members(text, jsonb, regclass, text[]) IS
'For import_config(): an ERROR unless the members of a group, scene or override are columns, of the kind that these need';

/*
 * Reads the members of a group or scene into a row.  When that fails, they are
 * tried one by one to find the culprit.
 */
CREATE FUNCTION retry.config_row(what text, given jsonb, base anyelement) RETURNS anyelement
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp SET IntervalStyle = 'postgres' AS $$
DECLARE
	member	record;
	code	text;
	problem	text;
	help	text;
BEGIN
	RETURN jsonb_populate_record(base, given);
EXCEPTION WHEN data_exception OR undefined_object OR syntax_error OR feature_not_supported THEN
	FOR member IN SELECT m.key, m.value FROM jsonb_each(given) m ORDER BY m.key
	LOOP
		BEGIN
			PERFORM jsonb_populate_record(base, jsonb_build_object(member.key, member.value));
		EXCEPTION WHEN data_exception OR undefined_object OR syntax_error OR feature_not_supported THEN
			GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, problem = MESSAGE_TEXT, help = PG_EXCEPTION_HINT;
			RAISE EXCEPTION '%, column "%": invalid value %', what, member.key, left(member.value::text, 100)
				USING ERRCODE = code, DETAIL = problem, COLUMN = member.key,
					HINT = CASE WHEN member.key = 'owner' THEN 'Create the role first, or name another owner in the document.' ELSE help END;
		END;
	END LOOP;
	RAISE;
END
$$;
COMMENT ON FUNCTION retry.config_row(text, jsonb, anyelement) IS
'For import_config(): a row with the members of a document; an ERROR that names the member that cannot be read';

/* Writes one row, if there is anything to write: added, changed or left. */
CREATE FUNCTION retry.write_config_row(
	what text, config_table regclass, given_group text, given_name text, columns text[], fresh anyelement)
RETURNS text
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp SET IntervalStyle = 'postgres' AS $$
DECLARE
	here	text := format('%I = $2%s', CASE WHEN config_table = 'retry.lane_override'::regclass THEN 'lane' ELSE 'name' END,
		CASE WHEN given_group IS NOT NULL THEN ' AND group_name = $3' END);
	old		jsonb;
	changed	text;
	code	text;
	problem	text;
	more	text;
	help	text;
	bad		text;
BEGIN
	EXECUTE format('SELECT to_jsonb(t) FROM %s t WHERE %s', config_table, here) INTO old USING fresh, given_name, given_group;
	SELECT string_agg(quote_ident(c), ', ' ORDER BY c) INTO changed
	FROM unnest(columns) c
	WHERE old IS NULL OR to_jsonb(fresh) -> c IS DISTINCT FROM old -> c;
	IF changed IS NULL THEN
		RETURN 'left';
	ELSIF old IS NULL THEN
		IF given_group IS NOT NULL THEN
			changed := changed || ', group_name';
		END IF;
		EXECUTE format('INSERT INTO %s (%s) SELECT %2$s FROM (SELECT ($1).*) AS fresh', config_table, changed) USING fresh;
		RETURN 'added';
	ELSE
		EXECUTE format('UPDATE %s SET (%s) = (SELECT %2$s FROM (SELECT ($1).*) AS fresh) WHERE %s', config_table, changed, here)
		USING fresh, given_name, given_group;
		RETURN 'changed';
	END IF;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, problem = MESSAGE_TEXT, more = PG_EXCEPTION_DETAIL,
		help = PG_EXCEPTION_HINT, bad = COLUMN_NAME;
	RAISE EXCEPTION '%', CASE WHEN starts_with(problem, what) THEN problem ELSE format('%s: %s', what, problem) END
		USING ERRCODE = code, DETAIL = more, HINT = help, COLUMN = bad;
END
$$;
COMMENT ON FUNCTION retry.write_config_row(text, regclass, text, text, text[], anyelement) IS
'For import_config(): inserts or updates one group, scene or override unless it is already so; says which';

/* What a document has in a group besides scenes, of one kind: written, and reported. */
CREATE FUNCTION retry.import_config_part(of_kind text, config_table regclass, given jsonb[], base anyelement)
RETURNS TABLE (kind text, name text, change text)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	s		jsonb;
	own		text;
	what	text;
	names	text[] := '{}';
BEGIN
	FOREACH s IN ARRAY given
	LOOP
		kind := of_kind;
		own := coalesce(s ->> 'lane', s ->> 'name');
		name := format('%s/%s', s ->> 'group_name', own);
		what := CASE of_kind WHEN 'lane' THEN format('lane "%s" of group "%s"', own, s ->> 'group_name')
			ELSE format('%s "%s"', of_kind, name) END;
		IF name = ANY (names) THEN
			RAISE EXCEPTION '% is twice in the document', what
				USING ERRCODE = 'invalid_parameter_value';
		END IF;
		names := names || name;
		change := retry.write_config_row(what, config_table, s ->> 'group_name', own,
			ARRAY(SELECT k FROM jsonb_object_keys(s - 'group_name') k), retry.config_row(what, s, base));
		RETURN NEXT;
	END LOOP;
END
$$;
COMMENT ON FUNCTION retry.import_config_part(text, regclass, jsonb[], anyelement) IS
'For import_config(): writes overrides of lanes, channels or alarm rules of a document';

CREATE FUNCTION retry.import_config(config jsonb)
RETURNS TABLE (kind text, name text, change text)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	later	text[] := ARRAY['on_success', 'on_dead', 'check_target'];	-- may name scenes that come later
	g		jsonb;
	s		jsonb;
	what	text;
	scenes	jsonb[] := '{}';
	lanes	jsonb[] := '{}';
	channels	jsonb[] := '{}';
	rules	jsonb[] := '{}';
	part	text;
	parts	CONSTANT text[] := ARRAY['scenes', 'lane_overrides', 'channels', 'alarm_rules'];
	names	text[] := '{}';
	changes	text[] := '{}';
	columns	text[];
	row_of_group	retry.scene_group;
	row_of_scene	retry.scene;
	i		int;
BEGIN
	IF jsonb_typeof(config) IS DISTINCT FROM 'object' THEN
		RAISE EXCEPTION 'the document is not an object'
			USING ERRCODE = 'invalid_parameter_value', HINT = 'retry.export_config() writes one.';
	ELSIF config -> 'retry' IS DISTINCT FROM '"1.0"' THEN
		RAISE EXCEPTION 'the document is not of version "1.0" but %', coalesce(config ->> 'retry', 'of none')
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Its member "retry" says the version.';
	ELSIF config - ARRAY['retry', 'groups'] <> '{}' THEN
		RAISE EXCEPTION 'unknown member "%" of the document', (SELECT min(k) FROM jsonb_object_keys(config - ARRAY['retry', 'groups']) k)
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Known are groups, retry.';
	ELSIF jsonb_typeof(config -> 'groups') IS DISTINCT FROM 'array' THEN
		RAISE EXCEPTION 'member "groups" of the document is not an array'
			USING ERRCODE = 'invalid_parameter_value';
	END IF;

	FOR g IN SELECT jsonb_array_elements(config -> 'groups')
	LOOP
		what := format('group "%s"', coalesce(g ->> 'name', '?'));
		PERFORM retry.check_config_members(what, g, 'retry.scene_group', parts);
		FOREACH part IN ARRAY parts
		LOOP
			IF jsonb_typeof(coalesce(g -> part, '[]')) <> 'array' THEN
				RAISE EXCEPTION '%: member "%" is not an array but %', what, part, left(g ->> part, 100)
					USING ERRCODE = 'invalid_parameter_value';
			END IF;
		END LOOP;
		IF (g ->> 'owner' ~ '^(\d+|-)$' OR g -> 'owner' = 'null')
			AND NOT EXISTS (SELECT FROM retry.scene_group x WHERE x.name = g ->> 'name' AND x.owner::text = g ->> 'owner')
		THEN
			RAISE EXCEPTION '%, column "owner": invalid value %', what, g -> 'owner'
				USING ERRCODE = 'undefined_object', DETAIL = 'It is not the name of a role.', COLUMN = 'owner',
					HINT = 'Create the role first, or name another owner in the document.';
		END IF;
		FOR s IN SELECT jsonb_array_elements(g -> 'scenes')
		LOOP
			PERFORM retry.check_config_members(
				format('scene "%s/%s"', g ->> 'name', coalesce(s ->> 'name', '?')), s, 'retry.scene', ARRAY[]::text[]);
			scenes := scenes || (s || jsonb_build_object('group_name', g -> 'name'));
		END LOOP;
		FOR s IN SELECT jsonb_array_elements(g -> 'lane_overrides')
		LOOP
			PERFORM retry.check_config_members(
				format('lane "%s" of group "%s"', coalesce(s ->> 'lane', '?'), g ->> 'name'), s, 'retry.lane_override', ARRAY[]::text[]);
			lanes := lanes || (s || jsonb_build_object('group_name', g -> 'name'));
		END LOOP;
		FOR s IN SELECT jsonb_array_elements(g -> 'channels')
		LOOP
			PERFORM retry.check_config_members(
				format('channel "%s/%s"', g ->> 'name', coalesce(s ->> 'name', '?')), s, 'retry.channel', ARRAY[]::text[]);
			channels := channels || (s || jsonb_build_object('group_name', g -> 'name'));
		END LOOP;
		FOR s IN SELECT jsonb_array_elements(g -> 'alarm_rules')
		LOOP
			PERFORM retry.check_config_members(
				format('alarm rule "%s/%s"', g ->> 'name', coalesce(s ->> 'name', '?')), s, 'retry.alarm_rule', ARRAY[]::text[]);
			rules := rules || (s || jsonb_build_object('group_name', g -> 'name'));
		END LOOP;

		columns := ARRAY(SELECT k FROM jsonb_object_keys(g - parts) k);
		row_of_group := retry.config_row(what, g - parts, NULL::retry.scene_group);
		kind := 'group';
		name := g ->> 'name';
		IF name = ANY (names) THEN
			RAISE EXCEPTION '% is twice in the document', what
				USING ERRCODE = 'invalid_parameter_value';
		END IF;
		names := names || name;
		change := retry.write_config_row(what, 'retry.scene_group', NULL, name, columns, row_of_group);
		RETURN NEXT;
	END LOOP;

	names := '{}';
	FOREACH s IN ARRAY scenes
	LOOP
		name := format('%s/%s', s ->> 'group_name', s ->> 'name');
		what := format('scene "%s"', name);
		IF name = ANY (names) THEN
			RAISE EXCEPTION '% is twice in the document', what
				USING ERRCODE = 'invalid_parameter_value';
		END IF;
		names := names || name;
		columns := ARRAY(SELECT k FROM jsonb_object_keys(s - 'group_name') k WHERE k <> ALL (later));
		row_of_scene := retry.config_row(what, s, NULL::retry.scene);
		changes := changes || retry.write_config_row(what, 'retry.scene', s ->> 'group_name', s ->> 'name', columns, row_of_scene);
	END LOOP;

	FOR i IN 1 .. cardinality(scenes)
	LOOP
		s := scenes[i];
		kind := 'scene';
		name := names[i];
		columns := ARRAY(SELECT k FROM jsonb_object_keys(s) k WHERE k = ANY (later));
		row_of_scene := retry.config_row(format('scene "%s"', name), s, NULL::retry.scene);
		change := retry.write_config_row(
			format('scene "%s"', name), 'retry.scene', s ->> 'group_name', s ->> 'name', columns, row_of_scene);
		IF changes[i] <> 'left' THEN
			change := changes[i];
		END IF;
		RETURN NEXT;
	END LOOP;

	RETURN QUERY SELECT * FROM retry.import_config_part('lane', 'retry.lane_override', lanes, NULL::retry.lane_override);
	RETURN QUERY SELECT * FROM retry.import_config_part('channel', 'retry.channel', channels, NULL::retry.channel);
	RETURN QUERY SELECT * FROM retry.import_config_part('alarm rule', 'retry.alarm_rule', rules, NULL::retry.alarm_rule);
END
$$;
COMMENT ON FUNCTION retry.import_config(jsonb) IS
'Makes groups, scenes, overrides of lanes, channels and rules for alarms as a document of retry.export_config() says: adds those that are missing, changes what differs, leaves alone what the document does not mention; returns what became of each';

CREATE FUNCTION retry.health()
RETURNS TABLE (check_name text, status text, detail text, hint text)
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retry_health';
COMMENT ON FUNCTION retry.health() IS
'What is well and what is not: one row a check, status ok, warning or critical, and what to do';

CREATE FUNCTION retry.check_workers() RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retry_check_workers';
COMMENT ON FUNCTION retry.check_workers() IS
'Tells the launcher, at commit, to look whether this database needs dispatchers; CREATE EXTENSION calls it';


/*
 * What the workers show of themselves, for the views running and dispatchers.
 * A role sees what is in flight of the tasks that it may see.
 */
CREATE FUNCTION retry.running_rows(
	OUT task_id		uuid,
	OUT attempt_no	int,
	OUT started_at	timestamptz,
	OUT leaf		smallint,
	OUT lane_hash	bigint,
	OUT scene_id	int
) RETURNS SETOF record
LANGUAGE C VOLATILE STRICT PARALLEL SAFE ROWS 100 AS 'MODULE_PATHNAME', 'retry_running_rows';
COMMENT ON FUNCTION retry.running_rows() IS
'Attempts of this database that are under way, of tasks that the current role may see; look at the view retry.running instead';

CREATE FUNCTION retry.amended(leaf smallint, id uuid, own anyelement, "column" text) RETURNS anyelement
LANGUAGE C STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'retry_amended';
COMMENT ON FUNCTION retry.amended(smallint, uuid, anyelement, text) IS
'A value of a task as retry.amend() has changed it, else its own; look at the view retry.tasks instead';

CREATE FUNCTION retry.task_now(
	id					uuid,
	OUT state			retry.task_state,
	OUT attempts		int,
	OUT last_status		smallint,
	OUT last_error		text,
	OUT next_due		timestamptz,
	OUT finished_at		timestamptz)
LANGUAGE C STABLE STRICT PARALLEL SAFE COST 100 AS 'MODULE_PATHNAME', 'retry_task_now';
COMMENT ON FUNCTION retry.task_now(uuid) IS
'How a task stands, if the current role may see it; look at the view retry.tasks instead';

CREATE FUNCTION retry.held_tasks(scene_id int, url text) RETURNS bigint
LANGUAGE C VOLATILE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'retry_held_tasks';
COMMENT ON FUNCTION retry.held_tasks(int, text) IS
'Tasks that the dispatchers have passed over since this URL is disabled; look at the view retry.disabled_urls instead';

CREATE FUNCTION retry.dispatcher_rows(
	OUT number			int,
	OUT count			int,
	OUT pid				int,
	OUT started_at		timestamptz,
	OUT in_flight		int,
	OUT queued			int,
	OUT lanes			int,
	OUT attempts		bigint,
	OUT turns			bigint,
	OUT last_turn_at	timestamptz,
	OUT oldest_due		timestamptz
) RETURNS SETOF record
LANGUAGE C VOLATILE STRICT PARALLEL SAFE ROWS 4 AS 'MODULE_PATHNAME', 'retry_dispatcher_rows';
COMMENT ON FUNCTION retry.dispatcher_rows() IS
'The dispatchers of this database, as they show themselves; look at the view retry.dispatchers instead';

CREATE FUNCTION retry.progress_rows(
	OUT pid			int,
	OUT role		oid,
	OUT operation	text,
	OUT group_id	int,
	OUT scene_id	int,
	OUT filter		text,
	OUT phase		text,
	OUT looked_at	bigint,
	OUT total		bigint,
	OUT estimated	boolean,
	OUT done		bigint,
	OUT started_at	timestamptz
) RETURNS SETOF record
LANGUAGE C VOLATILE STRICT PARALLEL SAFE ROWS 4 AS 'MODULE_PATHNAME', 'retry_progress_rows';
COMMENT ON FUNCTION retry.progress_rows() IS
'Long operations of this database that are going on, of groups and roles that the current role may see; look at the view retry.progress instead';

CREATE FUNCTION retry.lane_rows(
	OUT group_id		int,
	OUT lane			text,
	OUT state			text,
	OUT in_flight		int,
	OUT queued			int,
	OUT due				bigint,
	OUT oldest_due		timestamptz,
	OUT rate			float8,
	OUT p50				interval,
	OUT p95				interval,
	OUT p99				interval,
	OUT attempts		bigint,
	OUT network			bigint,
	OUT timeout			bigint,
	OUT http_5xx		bigint,
	OUT http_4xx		bigint,
	OUT throttled		bigint,
	OUT other			bigint,
	OUT breaker			text,
	OUT breaker_since	timestamptz,
	OUT blocked_until	timestamptz,
	OUT limit_now		int,
	OUT max_in_flight	int,
	OUT weight			int,
	OUT high			boolean,
	OUT paused			boolean,
	OUT disabled		boolean,
	OUT overridden		boolean,
	OUT last_at			timestamptz,
	OUT last_status		int,
	OUT last_error		text,
	OUT lane_hash		bigint,
	OUT dispatcher		int,
	OUT scenes			int[]
) RETURNS SETOF record
LANGUAGE C VOLATILE STRICT PARALLEL SAFE ROWS 1000 AS 'MODULE_PATHNAME', 'retry_lane_rows';
COMMENT ON FUNCTION retry.lane_rows() IS
'Lanes in the memory of this database''s dispatchers, of groups that the current role may see; look at the view retry.lanes instead';

CREATE FUNCTION retry.shut_lane_rows(OUT lane_hash bigint, OUT why text) RETURNS SETOF record
LANGUAGE C STABLE STRICT PARALLEL SAFE ROWS 10 AS 'MODULE_PATHNAME', 'retry_shut_lane_rows';
COMMENT ON FUNCTION retry.shut_lane_rows() IS
'Lanes of groups that the current role may use which send nothing now: breaker, blocked or no healthy target; for retry.tasks';

CREATE FUNCTION retry.target_rows(
	OUT group_id		int,
	OUT scene_id		int,
	OUT target			text,
	OUT state			text,
	OUT in_flight		int,
	OUT failures		int,
	OUT out_since		timestamptz,
	OUT breaker			text,
	OUT breaker_since	timestamptz,
	OUT calls			int,
	OUT failed			int,
	OUT blocked_until	timestamptz,
	OUT dispatcher		int
) RETURNS SETOF record
LANGUAGE C VOLATILE STRICT PARALLEL SAFE ROWS 100 AS 'MODULE_PATHNAME', 'retry_target_rows';
COMMENT ON FUNCTION retry.target_rows() IS
'Targets that this database''s dispatchers have called lately, of groups that the current role may see; look at the view retry.targets instead';

/*
 * Histograms of latencies: counts of buckets that grow by a third of an octave,
 * in arrays whose subscripts are the buckets' numbers.
 */
CREATE FUNCTION retry.latency_add(internal, bigint[]) RETURNS internal
LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'retry_latency_add';
COMMENT ON FUNCTION retry.latency_add(internal, bigint[]) IS 'For the aggregate retry.latency_sum()';

CREATE FUNCTION retry.latency_total(internal) RETURNS bigint[]
LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'retry_latency_total';
COMMENT ON FUNCTION retry.latency_total(internal) IS 'For the aggregate retry.latency_sum()';

CREATE AGGREGATE retry.latency_sum(bigint[])
(
	SFUNC = retry.latency_add,
	STYPE = internal,
	FINALFUNC = retry.latency_total,
	PARALLEL = SAFE
);
COMMENT ON AGGREGATE retry.latency_sum(bigint[]) IS 'Adds up histograms of latencies, as column latency of retry.stats has them';

CREATE FUNCTION retry.percentile(latency bigint[], share float8) RETURNS interval
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'retry_percentile';
COMMENT ON FUNCTION retry.percentile(bigint[], float8) IS
'The time within which a share (0 to 1) of the attempts of a histogram ended, right to within a quarter';

CREATE FUNCTION retry.scene_rows(
	OUT group_id		int,
	OUT scene_id		int,
	OUT dispatcher		int,
	OUT minute			timestamptz,
	OUT enqueued		bigint,
	OUT succeeded		bigint,
	OUT failed			bigint,
	OUT processing		bigint,
	OUT stopped			bigint,
	OUT expired			bigint,
	OUT blocked			bigint,
	OUT error			bigint,
	OUT retries			bigint,
	OUT dead			bigint,
	OUT cancelled		bigint,
	OUT busy_us			bigint,
	OUT late_us			bigint,
	OUT latency			bigint[],
	OUT pending			bigint,
	OUT retrying		bigint,
	OUT enqueued_rate	float8,
	OUT attempt_rate	float8,
	OUT failed_rate		float8,
	OUT recent			bigint[],
	OUT held_due		timestamptz
) RETURNS SETOF record
LANGUAGE C VOLATILE STRICT PARALLEL SAFE ROWS 100 AS 'MODULE_PATHNAME', 'retry_scene_rows';
COMMENT ON FUNCTION retry.scene_rows() IS
'What this database''s dispatchers have counted of their scenes and not stored yet, of groups that the current role may see; look at retry.overview and retry.stats instead';

CREATE FUNCTION retry.scene_running(OUT scene_id int, OUT running bigint, OUT first bigint) RETURNS SETOF record
LANGUAGE C VOLATILE STRICT PARALLEL SAFE ROWS 100 AS 'MODULE_PATHNAME', 'retry_scene_running';
COMMENT ON FUNCTION retry.scene_running() IS
'How many attempts of each scene are under way, and how many of these are the first of their tasks; look at retry.overview instead';

/*
 * 7. Views
 *
 * The state of a task is a fold over its facts.  Each state is an arm of its
 * own, driven from the index that finds it, and each arm is a security barrier
 * that shows a role only what it may see; the union over them adds the state,
 * so that a filter on it leaves one arm.
 *
 * Where a row has exactly one partner, it is a LEFT JOIN: for (leaf, id) the
 * planner multiplies the selectivities of two columns that go together, and
 * would expect one row of thousands; of a left join it expects no fewer rows
 * than there are on the left.
 */

CREATE VIEW retry.copied AS
SELECT i.boundary, pg_snapshot_xmax(i.boundary) AS xmax
FROM retry.installation i
WHERE NOT i.adopted AND i.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database());
COMMENT ON VIEW retry.copied IS
'When this database was found to be a copy: what these snapshots see came with it, and what was adopted before does not count any more';
COMMENT ON COLUMN retry.copied.boundary IS 'What came with it, as in retry.installation';
COMMENT ON COLUMN retry.copied.xmax IS 'End of that snapshot: adoptions with an earlier one were the original''s';

CREATE VIEW retry.secret_uses AS
SELECT s.id AS scene_id, s.name AS scene, g.id AS group_id, n.name, n.signs, n.certificate
FROM retry.scene s
JOIN retry.scene_group g ON g.name = s.group_name
CROSS JOIN LATERAL (
	SELECT s.secret, s.secret_use = 'webhook', false WHERE s.secret IS NOT NULL
	UNION ALL SELECT s.tls_cert, false, true WHERE s.tls_cert IS NOT NULL
	UNION SELECT u.name, false, false FROM unnest(retry.secret_names(s.headers)) u (name)) AS n (name, signs, certificate);
COMMENT ON VIEW retry.secret_uses IS 'Which scene needs which secret, and what as: to sign with, as its client certificate, or in headers';

CREATE VIEW retry.missing_secrets AS
SELECT u.scene_id, u.group_id, u.name
FROM retry.secret_uses u
WHERE NOT EXISTS (
	SELECT FROM retry.secret x
	WHERE x.group_id = u.group_id AND x.name = u.name AND x.signs_until IS NULL
		AND (x.signs OR NOT u.signs) AND x.certificate = u.certificate);
COMMENT ON VIEW retry.missing_secrets IS 'Secrets that scenes need and that are not set: tasks of these scenes wait';

CREATE VIEW retry.task_rows AS
SELECT
	t.leaf, t.id, t.scene_id, t.lane_hash,
	s.group_name || '/' || s.name AS scene,
	t.key, t.reference,
	coalesce(retry.amended(t.leaf, t.id, t.max_attempts, 'max_attempts'), s.max_attempts) AS max_attempts,
	retry.task_time(t.id) AS created_at,
	t.due_at,
	least(retry.amended(t.leaf, t.id, t.expires_at, 'expires_at'), retry.task_time(t.id) + s.expires_after, CASE WHEN t.due_at < '100000-01-01' THEN t.due_at + s.time_budget END) AS expires_at,
	coalesce(t.lane, retry.origin(t.url)) AS lane,
	CASE
		WHEN g.paused THEN 'group paused'
		WHEN s.paused THEN 'scene paused'
		WHEN t.scene_id IN (SELECT m.scene_id FROM retry.missing_secrets m) THEN 'missing secret'
		WHEN (t.inert OR
			-- usually there is none, which is asked once
			EXISTS (SELECT FROM retry.copied) AND
			EXISTS (SELECT FROM retry.copied c WHERE pg_visible_in_snapshot(t.xid, c.boundary)))
			AND NOT EXISTS (
				SELECT FROM retry.installation i
				WHERE i.adopted AND pg_visible_in_snapshot(t.xid, i.boundary)
					AND i.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database())
					AND NOT EXISTS (
						SELECT FROM retry.copied c
						WHERE pg_visible_in_snapshot(t.xid, c.boundary) AND c.xmax > pg_snapshot_xmax(i.boundary)))
			THEN 'not adopted'
		-- nothing is looked up in the usual case that there is no such URL
		WHEN EXISTS (SELECT FROM retry.disabled_url)
			AND CASE
				WHEN t.url IS NOT NULL OR s.targets IS NULL THEN EXISTS (
					SELECT FROM retry.disabled_url u
					WHERE u.scene_id = t.scene_id
						AND u.url = retry.canonical_url(coalesce(retry.amended(t.leaf, t.id, t.url, 'url'), s.url)))
				ELSE NOT EXISTS (
					SELECT FROM unnest(s.targets) AS x (target)
					WHERE NOT EXISTS (
						SELECT FROM retry.disabled_url u
						WHERE u.scene_id = t.scene_id AND u.url = retry.canonical_url(split_part(x.target, ' ', 1))))
			END
			THEN 'disabled URL'
		WHEN o.paused THEN 'lane paused'
		WHEN s.ordered AND s.dead_head = 'block' AND EXISTS (
			SELECT FROM retry.dead_head h
			WHERE h.lane_hash = t.lane_hash AND h.task_id IS DISTINCT FROM t.replay_of
				AND NOT EXISTS (SELECT FROM retry.dead_head_passed p WHERE p.task_id = h.task_id))
			THEN 'behind a dead task'
		-- asked once, and once more if there are any
		WHEN t.lane_hash IN (SELECT l.lane_hash FROM retry.shut_lane_rows() l)
			THEN (SELECT l.why FROM retry.shut_lane_rows() l WHERE l.lane_hash = t.lane_hash LIMIT 1)
	END AS held_reason,
	coalesce(retry.amended(t.leaf, t.id, t.method, 'method'), s.method) AS method,
	coalesce(retry.amended(t.leaf, t.id, t.url, 'url'), s.url) AS url,
	retry.amended(t.leaf, t.id, t.headers, 'headers') AS headers,
	retry.amended(t.leaf, t.id, t.body, 'body') AS body,
	t.enqueued_by, t.replay_of, t.parent_id
FROM retry.task t
LEFT JOIN retry.scene s ON s.id = t.scene_id
LEFT JOIN retry.scene_group g ON g.name = s.group_name
LEFT JOIN retry.lane_override o ON o.group_name = s.group_name AND o.lane = coalesce(t.lane, retry.origin(t.url));
COMMENT ON VIEW retry.task_rows IS 'Tasks with what their scene adds; what the arms of retry.tasks are made from';

CREATE VIEW retry.last_attempts AS
SELECT a.leaf, a.task_id, a.scene_id, a.attempt_no, a.outcome, a.http_status, a.error, a.finished_at, a.next_due
FROM retry.attempt a
WHERE NOT EXISTS (
	SELECT FROM retry.attempt b
	WHERE b.leaf = a.leaf AND b.task_id = a.task_id AND b.attempt_no = a.attempt_no + 1);
COMMENT ON VIEW retry.last_attempts IS 'The newest attempt of each task that has one';

CREATE VIEW retry.cancelled AS
SELECT c.leaf, c.task_id, c.due_at AS cancelled_at
FROM retry.signal c
WHERE c.action = 'c'
	-- the first, where it was asked for more than once
	AND NOT EXISTS (
		SELECT FROM retry.signal d
		WHERE d.leaf = c.leaf AND d.task_id = c.task_id AND d.action = 'c' AND (d.due_at, d.ctid) < (c.due_at, c.ctid));
COMMENT ON VIEW retry.cancelled IS 'Tasks that somebody asked to cancel';

CREATE VIEW retry.tasks_pending WITH (security_barrier) AS
SELECT r.*
FROM retry.task_rows r
WHERE (r.scene_id IN (SELECT retry.my_scenes(false))
	   OR r.scene_id IN (SELECT retry.my_scenes(true)) AND pg_has_role(r.enqueued_by, 'USAGE'))
	AND NOT EXISTS (SELECT FROM retry.attempt a WHERE a.leaf = r.leaf AND a.task_id = r.id)
	AND NOT EXISTS (SELECT FROM retry.signal c WHERE c.leaf = r.leaf AND c.task_id = r.id AND c.action = 'c')
	AND NOT EXISTS (SELECT FROM retry.running_rows() w WHERE w.task_id = r.id);
COMMENT ON VIEW retry.tasks_pending IS 'Arm of retry.tasks: no attempt yet';

CREATE VIEW retry.tasks_running WITH (security_barrier) AS
SELECT r.*, w.attempt_no, w.started_at, l.http_status, l.error
FROM retry.running_rows() w
JOIN retry.task_rows r ON r.leaf = w.leaf AND r.id = w.task_id
LEFT JOIN retry.attempt l ON l.leaf = w.leaf AND l.task_id = w.task_id AND l.attempt_no = w.attempt_no - 1
WHERE (r.scene_id IN (SELECT retry.my_scenes(false))
	   OR r.scene_id IN (SELECT retry.my_scenes(true)) AND pg_has_role(r.enqueued_by, 'USAGE'))
	-- what is recorded is another arm's, though its dispatcher may not have let go of it
	AND NOT EXISTS (SELECT FROM retry.attempt a WHERE a.leaf = w.leaf AND a.task_id = w.task_id AND a.attempt_no = w.attempt_no);
COMMENT ON VIEW retry.tasks_running IS 'Arm of retry.tasks: an attempt is under way';

CREATE VIEW retry.tasks_retrying WITH (security_barrier) AS
SELECT
	-- the attempt's, so that a list of ids leads to these attempts alone
	a.task_id AS id,
	r.leaf, r.scene_id, r.lane_hash, r.scene, r.key, r.reference, r.max_attempts, r.created_at, r.due_at, r.expires_at,
	r.lane, r.held_reason, r.method, r.url, r.headers, r.body, r.enqueued_by, r.replay_of, r.parent_id,
	a.attempt_no, a.http_status, a.error, a.next_due
FROM retry.last_attempts a
LEFT JOIN retry.task_rows r ON r.leaf = a.leaf AND r.id = a.task_id
WHERE a.next_due IS NOT NULL
	AND (a.scene_id IN (SELECT retry.my_scenes(false))
		 OR a.scene_id IN (SELECT retry.my_scenes(true)) AND pg_has_role(r.enqueued_by, 'USAGE'))
	AND NOT EXISTS (SELECT FROM retry.signal c WHERE c.leaf = a.leaf AND c.task_id = a.task_id AND c.action = 'c')
	AND NOT EXISTS (SELECT FROM retry.running_rows() w WHERE w.task_id = a.task_id AND w.attempt_no > a.attempt_no);
COMMENT ON VIEW retry.tasks_retrying IS 'Arm of retry.tasks: the last attempt asks for another';

CREATE VIEW retry.tasks_succeeded WITH (security_barrier) AS
SELECT r.*, a.attempt_no, a.http_status, a.error, a.finished_at
FROM retry.attempt a
LEFT JOIN retry.task_rows r ON r.leaf = a.leaf AND r.id = a.task_id
WHERE a.next_due IS NULL AND a.outcome = 'succeeded'
	AND (a.scene_id IN (SELECT retry.my_scenes(false))
		 OR a.scene_id IN (SELECT retry.my_scenes(true)) AND pg_has_role(r.enqueued_by, 'USAGE'));
COMMENT ON VIEW retry.tasks_succeeded IS 'Arm of retry.tasks: the last attempt succeeded';

CREATE VIEW retry.dead_rows AS
SELECT
	d.id,
	s.group_name || '/' || s.name AS scene,
	d.key, d.reference,
	coalesce(d.max_attempts, s.max_attempts) AS max_attempts,
	retry.task_time(d.id) AS created_at,
	d.due_at,
	least(d.expires_at, retry.task_time(d.id) + s.expires_after, CASE WHEN d.due_at < '100000-01-01' THEN d.due_at + s.time_budget END) AS expires_at,
	coalesce(d.lane, retry.origin(d.url)) AS lane,
	coalesce(d.method, s.method) AS method,
	coalesce(d.url, s.url) AS url,
	d.headers, d.body, d.enqueued_by, d.replay_of, p.replayed_as, d.parent_id,
	d.attempts, d.http_status, d.error, d.died_at, d.reason, d.response, d.scene_id
FROM retry.dead_letter d
LEFT JOIN retry.scene s ON s.id = d.scene_id
LEFT JOIN retry.replayed p ON p.task_id = d.id;
COMMENT ON VIEW retry.dead_rows IS 'Dead letters as both views of them show them, whoever may see which';

CREATE VIEW retry.tasks_dead WITH (security_barrier) AS
SELECT *
FROM retry.dead_rows
WHERE scene_id IN (SELECT retry.my_scenes(false))
	OR scene_id IN (SELECT retry.my_scenes(true)) AND pg_has_role(enqueued_by, 'USAGE');
COMMENT ON VIEW retry.tasks_dead IS 'Arm of retry.tasks: dead, from the dead letters, which outlive the history';

CREATE VIEW retry.tasks_cancelled WITH (security_barrier) AS
SELECT r.*, a.attempt_no, a.http_status, a.error, c.cancelled_at
FROM retry.cancelled c
JOIN retry.task_rows r ON r.leaf = c.leaf AND r.id = c.task_id
LEFT JOIN retry.last_attempts a ON a.leaf = r.leaf AND a.task_id = r.id
WHERE (a.task_id IS NULL OR a.next_due IS NOT NULL)
	AND (r.scene_id IN (SELECT retry.my_scenes(false))
		 OR r.scene_id IN (SELECT retry.my_scenes(true)) AND pg_has_role(r.enqueued_by, 'USAGE'))
	AND NOT EXISTS (SELECT FROM retry.running_rows() w WHERE w.task_id = r.id AND w.attempt_no > coalesce(a.attempt_no, 0));
COMMENT ON VIEW retry.tasks_cancelled IS 'Arm of retry.tasks: cancelled, and nothing ended it otherwise';

-- the leaf is the last column: before it are those of retry.tasks
CREATE VIEW retry.tasks_by_leaf AS
SELECT
	id, scene, key, reference, 'pending'::retry.task_state AS state,
	0 AS attempts, max_attempts, NULL::smallint AS last_status, NULL::text AS last_error,
	created_at, due_at, due_at AS next_due, NULL::timestamptz AS finished_at, expires_at,
	lane, held_reason, method, url, headers, body, enqueued_by, replay_of,
	NULL::uuid AS replayed_as, parent_id, leaf
FROM retry.tasks_pending
UNION ALL
SELECT
	id, scene, key, reference, 'running',
	attempt_no - 1, max_attempts, http_status, error,
	created_at, due_at, NULL, NULL, expires_at,
	lane, NULL, method, url, headers, body, enqueued_by, replay_of,
	NULL, parent_id, leaf
FROM retry.tasks_running
UNION ALL
SELECT
	id, scene, key, reference, 'retrying',
	attempt_no, max_attempts, http_status, error,
	created_at, due_at, next_due, NULL, expires_at,
	lane, held_reason, method, url, headers, body, enqueued_by, replay_of,
	NULL, parent_id, leaf
FROM retry.tasks_retrying
UNION ALL
SELECT
	id, scene, key, reference, 'succeeded',
	attempt_no, max_attempts, http_status, error,
	created_at, due_at, NULL, finished_at, expires_at,
	lane, NULL, method, url, headers, body, enqueued_by, replay_of,
	NULL, parent_id, leaf
FROM retry.tasks_succeeded
UNION ALL
SELECT
	id, scene, key, reference, 'cancelled',
	coalesce(attempt_no, 0), max_attempts, http_status, error,
	created_at, due_at, NULL, cancelled_at, expires_at,
	lane, NULL, method, url, headers, body, enqueued_by, replay_of,
	NULL, parent_id, leaf
FROM retry.tasks_cancelled;
COMMENT ON VIEW retry.tasks_by_leaf IS 'All of retry.tasks but the dead, with the leaf that each lies in: who names it has a query planned for that leaf alone; look at retry.tasks instead';

CREATE VIEW retry.tasks AS
SELECT
	id, scene, key, reference, state,
	attempts, max_attempts, last_status, last_error,
	created_at, due_at, next_due, finished_at, expires_at,
	lane, held_reason, method, url, headers, body, enqueued_by, replay_of,
	replayed_as, parent_id
FROM retry.tasks_by_leaf
UNION ALL
SELECT
	id, scene, key, reference, 'dead',
	attempts, max_attempts, http_status, error,
	created_at, due_at, NULL, died_at, expires_at,
	lane, NULL, method, url, headers, body, enqueued_by, replay_of,
	replayed_as, parent_id
FROM retry.tasks_dead;
COMMENT ON VIEW retry.tasks IS 'All tasks that the current role may see, with their state now';
COMMENT ON COLUMN retry.tasks.id IS 'What retry.enqueue() returned';
COMMENT ON COLUMN retry.tasks.scene IS 'group/scene';
COMMENT ON COLUMN retry.tasks.key IS 'Idempotency key given by the caller';
COMMENT ON COLUMN retry.tasks.reference IS 'Business number given by the caller';
COMMENT ON COLUMN retry.tasks.state IS 'Filter on it: each state has an index of its own';
COMMENT ON COLUMN retry.tasks.attempts IS 'Attempts recorded';
COMMENT ON COLUMN retry.tasks.max_attempts IS 'Limit in force now';
COMMENT ON COLUMN retry.tasks.last_status IS 'HTTP status of the last attempt; null when there was no answer';
COMMENT ON COLUMN retry.tasks.last_error IS 'What went wrong at the last attempt';
COMMENT ON COLUMN retry.tasks.created_at IS 'When it was enqueued';
COMMENT ON COLUMN retry.tasks.due_at IS 'When the first attempt was or is due';
COMMENT ON COLUMN retry.tasks.next_due IS 'When the next attempt is due';
COMMENT ON COLUMN retry.tasks.finished_at IS 'When it succeeded, died or was cancelled';
COMMENT ON COLUMN retry.tasks.expires_at IS 'No attempt starts after this';
COMMENT ON COLUMN retry.tasks.lane IS 'The lane it goes through';
COMMENT ON COLUMN retry.tasks.held_reason IS 'Why it is not sent though it may be due; null: nothing holds it';
COMMENT ON COLUMN retry.tasks.method IS 'HTTP method';
COMMENT ON COLUMN retry.tasks.url IS 'URL in force now';
COMMENT ON COLUMN retry.tasks.headers IS 'The task''s own headers';
COMMENT ON COLUMN retry.tasks.body IS 'The request''s body';
COMMENT ON COLUMN retry.tasks.enqueued_by IS 'Role that enqueued it';
COMMENT ON COLUMN retry.tasks.replay_of IS 'The finished task that it replays';
COMMENT ON COLUMN retry.tasks.replayed_as IS 'The task that replays this dead one';
COMMENT ON COLUMN retry.tasks.parent_id IS 'The task that led to it';

-- hash and merge joins would read all of a leaf for a few of its rows
CREATE FUNCTION retry.find(
	key			text DEFAULT NULL,
	reference	text DEFAULT NULL,
	id			uuid DEFAULT NULL)
RETURNS SETOF retry.tasks
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000 ROWS 10
SET search_path = pg_catalog, pg_temp
SET jit = off
SET enable_hashjoin = off
SET enable_mergejoin = off
AS 'MODULE_PATHNAME', 'retry_find';
COMMENT ON FUNCTION retry.find(text, text, uuid) IS
'The tasks with a key, with a reference or with an id, one of the three, that the current role may see, as rows of retry.tasks; it looks first where they lie, which saves most of what planning a query of retry.tasks takes';

-- hash and merge joins would read all of a table for the rows of one page
CREATE FUNCTION retry.page(
	state	retry.task_state,
	after	uuid DEFAULT NULL,
	size	int DEFAULT 50,
	scene	text DEFAULT NULL)
RETURNS SETOF retry.tasks
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000 ROWS 50
SET search_path = pg_catalog, pg_temp
SET jit = off
SET enable_hashjoin = off
SET enable_mergejoin = off
AS 'MODULE_PATHNAME', 'retry_page';
COMMENT ON FUNCTION retry.page(retry.task_state, uuid, int, text) IS
'One page of the tasks in a state that the current role may see, as rows of retry.tasks, in an order of its own: for pending and retrying the one that is due first, else the one that was sent, succeeded, died or was cancelled last; after: the id of the last task of the page before; size: 1 to 1000; scene: only of that scene';

CREATE VIEW retry.attempts WITH (security_barrier) AS
SELECT
	a.task_id, a.attempt_no,
	s.group_name || '/' || s.name AS scene,
	coalesce(t.lane, retry.origin(t.url)) AS lane,
	a.finished_at - a.duration_us * interval '1 us' AS started_at,
	a.duration_us * interval '1 us' AS duration,
	a.outcome, a.http_status, a.error, a.response, a.next_due, a.remote_address, a.target,
	a.finished_at, a.dns_us, a.connect_us, a.tls_us, a.first_byte_us, a.hedged
FROM retry.attempt a
LEFT JOIN retry.task t ON t.leaf = a.leaf AND t.id = a.task_id
LEFT JOIN retry.scene s ON s.id = a.scene_id
WHERE a.scene_id IN (SELECT retry.my_scenes(false))
	OR a.scene_id IN (SELECT retry.my_scenes(true)) AND pg_has_role(t.enqueued_by, 'USAGE');
COMMENT ON VIEW retry.attempts IS 'All finished attempts of the tasks that the current role may see';
COMMENT ON COLUMN retry.attempts.task_id IS 'The task';
COMMENT ON COLUMN retry.attempts.attempt_no IS '1, 2, 3 …, without gaps';
COMMENT ON COLUMN retry.attempts.scene IS 'group/scene';
COMMENT ON COLUMN retry.attempts.lane IS 'The lane it went through';
COMMENT ON COLUMN retry.attempts.started_at IS 'When it was sent';
COMMENT ON COLUMN retry.attempts.duration IS 'From its start to its end';
COMMENT ON COLUMN retry.attempts.outcome IS 'What became of it';
COMMENT ON COLUMN retry.attempts.http_status IS 'Status of the answer; null when there was none';
COMMENT ON COLUMN retry.attempts.error IS 'What went wrong, in words';
COMMENT ON COLUMN retry.attempts.response IS 'First bytes of the answer''s body, at most retry.max_response_bytes';
COMMENT ON COLUMN retry.attempts.next_due IS 'When the next attempt was due after it; null: it was the last';
COMMENT ON COLUMN retry.attempts.remote_address IS 'Address that was connected to';
COMMENT ON COLUMN retry.attempts.target IS 'Target of a routed scene that was called';
COMMENT ON COLUMN retry.attempts.finished_at IS 'When its end was known';
COMMENT ON COLUMN retry.attempts.dns_us IS 'Microseconds to resolve the name; null: a kept connection';
COMMENT ON COLUMN retry.attempts.connect_us IS 'Microseconds to connect; null: a kept connection';
COMMENT ON COLUMN retry.attempts.tls_us IS 'Microseconds to agree on TLS; null: no TLS or a kept connection';
COMMENT ON COLUMN retry.attempts.first_byte_us IS 'Microseconds from the start until the answer''s first byte';
COMMENT ON COLUMN retry.attempts.hedged IS 'Was it sent a second time because it lasted long? Null: its scene does not hedge';

CREATE VIEW retry.running AS
SELECT id, scene, key, reference, attempt_no, started_at,
	clock_timestamp() - started_at AS running_for, lane, url
FROM retry.tasks_running;
COMMENT ON VIEW retry.running IS 'Attempts that are under way';
COMMENT ON COLUMN retry.running.id IS 'The task';
COMMENT ON COLUMN retry.running.scene IS 'group/scene';
COMMENT ON COLUMN retry.running.key IS 'Idempotency key given by the caller';
COMMENT ON COLUMN retry.running.reference IS 'Business number given by the caller';
COMMENT ON COLUMN retry.running.attempt_no IS 'Number of the attempt';
COMMENT ON COLUMN retry.running.started_at IS 'When it was sent';
COMMENT ON COLUMN retry.running.running_for IS 'How long ago that is';
COMMENT ON COLUMN retry.running.lane IS 'The lane it goes through';
COMMENT ON COLUMN retry.running.url IS 'Where it goes';

-- its order is that of an index, so that the newest few of very many come at once
CREATE VIEW retry.dead_letters WITH (security_barrier) AS
SELECT
	id, scene, key, reference, 'dead'::retry.task_state AS state, reason,
	attempts, max_attempts, http_status AS last_status, error AS last_error,
	created_at, due_at, died_at AS finished_at, expires_at,
	lane, method, url, headers, body, response AS last_response,
	enqueued_by, replay_of, replayed_as, parent_id
FROM retry.dead_rows
WHERE scene_id IN (SELECT retry.my_scenes(false))
	OR scene_id IN (SELECT retry.my_scenes(true)) AND pg_has_role(enqueued_by, 'USAGE')
ORDER BY died_at DESC;
COMMENT ON VIEW retry.dead_letters IS 'Dead tasks, whole, with the reason, the newest first; retry.replay_dead() sends them again';
COMMENT ON COLUMN retry.dead_letters.id IS 'The task';
COMMENT ON COLUMN retry.dead_letters.scene IS 'group/scene';
COMMENT ON COLUMN retry.dead_letters.key IS 'Idempotency key given by the caller';
COMMENT ON COLUMN retry.dead_letters.reference IS 'Business number given by the caller';
COMMENT ON COLUMN retry.dead_letters.state IS 'dead';
COMMENT ON COLUMN retry.dead_letters.reason IS 'Why it died';
COMMENT ON COLUMN retry.dead_letters.attempts IS 'Attempts made';
COMMENT ON COLUMN retry.dead_letters.max_attempts IS 'Limit in force now';
COMMENT ON COLUMN retry.dead_letters.last_status IS 'HTTP status of the last attempt';
COMMENT ON COLUMN retry.dead_letters.last_error IS 'What went wrong at the last attempt';
COMMENT ON COLUMN retry.dead_letters.created_at IS 'When it was enqueued';
COMMENT ON COLUMN retry.dead_letters.due_at IS 'When the first attempt was due';
COMMENT ON COLUMN retry.dead_letters.finished_at IS 'When it died';
COMMENT ON COLUMN retry.dead_letters.expires_at IS 'No attempt started after this';
COMMENT ON COLUMN retry.dead_letters.lane IS 'The lane it went through';
COMMENT ON COLUMN retry.dead_letters.method IS 'HTTP method';
COMMENT ON COLUMN retry.dead_letters.url IS 'URL in force now';
COMMENT ON COLUMN retry.dead_letters.headers IS 'The task''s own headers';
COMMENT ON COLUMN retry.dead_letters.body IS 'The request''s body';
COMMENT ON COLUMN retry.dead_letters.last_response IS 'First bytes of the last answer''s body';
COMMENT ON COLUMN retry.dead_letters.enqueued_by IS 'Role that enqueued it';
COMMENT ON COLUMN retry.dead_letters.replay_of IS 'The finished task that it replayed';
COMMENT ON COLUMN retry.dead_letters.replayed_as IS 'The task that replays it; retry.replay_dead() then passes it over';
COMMENT ON COLUMN retry.dead_letters.parent_id IS 'The task that led to it';

CREATE VIEW retry.disabled_urls WITH (security_barrier) AS
SELECT DISTINCT ON (d.scene_id, d.url)
	s.group_name || '/' || s.name AS scene, d.url, d.since, d.task_id AS task, d.http_status,
	d.reason, d.disabled_by, retry.held_tasks(d.scene_id, d.url) AS held
FROM retry.disabled_url d
JOIN retry.scene s ON s.id = d.scene_id
WHERE d.scene_id IN (SELECT retry.my_scenes(false))
	OR d.scene_id IN (SELECT retry.my_scenes(true)) AND pg_has_role(d.disabled_by, 'USAGE')
ORDER BY d.scene_id, d.url, d.since;
COMMENT ON VIEW retry.disabled_urls IS 'URLs that nothing is sent to, until retry.enable_url() is called';
COMMENT ON COLUMN retry.disabled_urls.scene IS 'group/scene in which it is disabled';
COMMENT ON COLUMN retry.disabled_urls.url IS 'The URL, as retry.canonical_url() spells it';
COMMENT ON COLUMN retry.disabled_urls.since IS 'When it was disabled';
COMMENT ON COLUMN retry.disabled_urls.task IS 'The task whose attempt was answered with 410; null: an administrator disabled it';
COMMENT ON COLUMN retry.disabled_urls.http_status IS 'Status of that answer';
COMMENT ON COLUMN retry.disabled_urls.reason IS 'What the administrator gave as the reason';
COMMENT ON COLUMN retry.disabled_urls.disabled_by IS 'Role that enqueued the task, or the administrator';
COMMENT ON COLUMN retry.disabled_urls.held IS 'How many tasks wait for it, as far as the dispatchers have met them since they started; those whose held_reason in retry.tasks is ''disabled URL'' are counted exactly there';

CREATE VIEW retry.secrets WITH (security_barrier) AS
SELECT
	g.name AS group_name, k.name,
	max(x.set_at) AS set_at,
	now() - max(x.set_at) AS age,
	count(x.set_at) FILTER (WHERE x.signs_until IS NULL OR x.signs_until > now()) AS active,
	max(x.signs_until) FILTER (WHERE x.signs_until > now()) AS overlap_until,
	bool_or(x.signs) FILTER (WHERE x.signs_until IS NULL) AS signs,
	bool_or(x.certificate) FILTER (WHERE x.signs_until IS NULL) AS certificate,
	(SELECT array_agg(DISTINCT u.scene ORDER BY u.scene) FROM retry.secret_uses u WHERE u.group_id = k.group_id AND u.name = k.name) AS used_by
FROM (SELECT group_id, name FROM retry.secret UNION SELECT group_id, name FROM retry.secret_uses) k
JOIN retry.scene_group g ON g.id = k.group_id
LEFT JOIN retry.secret x ON x.group_id = k.group_id AND x.name = k.name
WHERE k.group_id IN (SELECT retry.my_groups())
GROUP BY g.name, k.group_id, k.name;
COMMENT ON VIEW retry.secrets IS 'Secrets of the groups that the current role owns or was granted: names and ages, never values';
COMMENT ON COLUMN retry.secrets.group_name IS 'The group whose scenes may name it';
COMMENT ON COLUMN retry.secrets.name IS 'Its name';
COMMENT ON COLUMN retry.secrets.set_at IS 'When its current value was set; null: a scene names it, and it is not set';
COMMENT ON COLUMN retry.secrets.age IS 'For how long it has that value';
COMMENT ON COLUMN retry.secrets.active IS 'Values in force: more than one while they overlap after a change';
COMMENT ON COLUMN retry.secrets.overlap_until IS 'When the last of the former values is over; null: there is none';
COMMENT ON COLUMN retry.secrets.signs IS 'True: its value is a key that signs; false: it can only be named in headers';
COMMENT ON COLUMN retry.secrets.certificate IS 'True: its value is a client certificate; such a one can be named in tls_cert only';
COMMENT ON COLUMN retry.secrets.used_by IS 'Scenes of the group that name it; null: none';

CREATE VIEW retry.schedule_rows AS
SELECT s.*,
	CASE
		WHEN i.database IS NULL THEN 'infinity'
		WHEN s.inert OR i.copied THEN coalesce(i.adopted_at, 'infinity')
		ELSE '-infinity'
	END AS allowed_from
FROM retry.schedule_definition s
LEFT JOIN LATERAL (
	SELECT n.database,
		bool_or(NOT n.adopted AND pg_visible_in_snapshot(s.xid, n.boundary)) AS copied,
		min(n.at) FILTER (WHERE n.adopted AND pg_visible_in_snapshot(s.xid, n.boundary)
			AND NOT EXISTS (
				SELECT FROM retry.copied c
				WHERE pg_visible_in_snapshot(s.xid, c.boundary) AND c.xmax > pg_snapshot_xmax(n.boundary))) AS adopted_at
	FROM retry.installation n
	WHERE n.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database())
	GROUP BY n.database) i ON true;
COMMENT ON VIEW retry.schedule_rows IS
'Schedules, and from when on they may run: restored and copied ones from their adoption on; what retry.schedules is made from, and what workers read';

CREATE VIEW retry.schedules WITH (security_barrier) AS
SELECT
	s.name, s.owner, s.cron, s.tz, s.target, s.payload, s.options, s.missed, s.active,
	CASE WHEN s.active AND s.allowed_from < 'infinity'
		THEN retry.cron_next(s.cron, greatest(clock_timestamp(), l.nominal), s.tz) END AS next_run,
	r.nominal AS last_run, r.task_id AS last_task, l.error AS last_error,
	CASE WHEN s.cron_job IS NULL THEN 'retry' ELSE 'pg_cron' END AS runs_by,
	CASE WHEN s.allowed_from = 'infinity' THEN 'not adopted' END AS held_reason
FROM retry.schedule_rows s
LEFT JOIN LATERAL (
	SELECT x.nominal, x.error FROM retry.schedule_run x WHERE x.schedule_id = s.id
	ORDER BY x.nominal DESC LIMIT 1) l ON true
LEFT JOIN LATERAL (
	SELECT x.nominal, x.task_id FROM retry.schedule_run x WHERE x.schedule_id = s.id AND x.task_id IS NOT NULL
	ORDER BY x.nominal DESC LIMIT 1) r ON true
WHERE pg_has_role(s.owner, 'USAGE');
COMMENT ON VIEW retry.schedules IS 'Recurring tasks of the roles that the current role is a member of';
COMMENT ON COLUMN retry.schedules.name IS 'Unique for its owner';
COMMENT ON COLUMN retry.schedules.owner IS 'Role that made it, and as which its runs are enqueued';
COMMENT ON COLUMN retry.schedules.cron IS 'The five fields, in their canonical form';
COMMENT ON COLUMN retry.schedules.tz IS 'Their time zone';
COMMENT ON COLUMN retry.schedules.target IS 'What each run is enqueued for';
COMMENT ON COLUMN retry.schedules.payload IS 'Request body of each run';
COMMENT ON COLUMN retry.schedules.options IS 'More arguments of retry.enqueue(), by name';
COMMENT ON COLUMN retry.schedules.missed IS 'What becomes of runs that are a minute late or more: skip, once, all';
COMMENT ON COLUMN retry.schedules.active IS 'False: it does not run';
COMMENT ON COLUMN retry.schedules.next_run IS 'When it runs next; null: it does not';
COMMENT ON COLUMN retry.schedules.last_run IS 'Nominal time of its last run that became a task';
COMMENT ON COLUMN retry.schedules.last_task IS 'That task';
COMMENT ON COLUMN retry.schedules.last_error IS 'Why its last run could not be enqueued; null: it was, or was passed over';
COMMENT ON COLUMN retry.schedules.runs_by IS 'pg_cron: a job of pg_cron runs it, and a worker of retry when that is late; retry: the worker';
COMMENT ON COLUMN retry.schedules.held_reason IS 'Why it does not run though it is active: not adopted; null: nothing holds it';

CREATE VIEW retry.events WITH (security_barrier) AS
SELECT
	e.at, e.kind, g.name AS group_name, s.group_name || '/' || s.name AS scene,
	e.lane, e.target, e.detail, e.lane_hash, e.dispatcher
FROM retry.event e
LEFT JOIN retry.scene_group g ON g.id = e.group_id
LEFT JOIN retry.scene s ON s.id = e.scene_id
WHERE coalesce(e.group_id, (SELECT d.id FROM retry.scene_group d WHERE d.name = 'default')) IN (SELECT retry.my_groups());
COMMENT ON VIEW retry.events IS 'What happened to lanes, targets, dispatchers and configuration, of groups that the current role owns or was granted';
COMMENT ON COLUMN retry.events.at IS 'When it happened; filter on it';
COMMENT ON COLUMN retry.events.kind IS 'What happened: breaker opened, breaker closed, throttled, blocked …';
COMMENT ON COLUMN retry.events.group_name IS 'The group that the lane belongs to; null: it concerns all';
COMMENT ON COLUMN retry.events.scene IS 'group/scene of the task that it happened with';
COMMENT ON COLUMN retry.events.lane IS 'The lane, as retry.lanes shows it';
COMMENT ON COLUMN retry.events.target IS 'Target of a routed scene, or URL, that it concerns';
COMMENT ON COLUMN retry.events.detail IS 'More, in words';
COMMENT ON COLUMN retry.events.lane_hash IS 'The lane''s number';
COMMENT ON COLUMN retry.events.dispatcher IS 'Number of the dispatcher that noted it';

CREATE VIEW retry.audit WITH (security_barrier) AS
SELECT
	e.at, e.session_role, e.role, e.action, e.group_name, e.object, e.task_id AS task, e.before, e.after
FROM retry.audit_entry e
LEFT JOIN retry.scene_group g ON g.id = e.group_id
WHERE pg_has_role(g.owner, 'USAGE')
	OR pg_has_role((SELECT c.relowner FROM pg_catalog.pg_class c WHERE c.oid = 'retry.audit_entry'::regclass), 'USAGE');
COMMENT ON VIEW retry.audit IS 'Who did what in the groups that the current role owns; all of it for the extension''s owner';
COMMENT ON COLUMN retry.audit.at IS 'When; filter on it';
COMMENT ON COLUMN retry.audit.session_role IS 'Who had logged in';
COMMENT ON COLUMN retry.audit.role IS 'As which role it was done';
COMMENT ON COLUMN retry.audit.action IS 'What was done: scene changed, secret set, task cancelled …';
COMMENT ON COLUMN retry.audit.group_name IS 'Name of the group, as it was then; null: it concerns none, or several';
COMMENT ON COLUMN retry.audit.object IS 'Name of the scene, lane, secret, role, schedule or URL';
COMMENT ON COLUMN retry.audit.task IS 'The task';
COMMENT ON COLUMN retry.audit.before IS 'What differs, as it was; values of headers and payloads are not shown';
COMMENT ON COLUMN retry.audit.after IS 'What differs, as it is then; of a call for many tasks its arguments and their number';

CREATE VIEW retry.transactions WITH (security_barrier) AS
SELECT
	t.gid, t.mode, s.group_name || '/' || s.name AS scene,
	coalesce(m.key, t.key) AS key, coalesce(m.reference, t.reference) AS reference,
	CASE
		WHEN d.gid IS NULL THEN 'undecided'
		WHEN d.decision = 'commit' THEN CASE WHEN p.open = 0 THEN 'committed' ELSE 'committing' END
		ELSE CASE WHEN p.open = 0 THEN 'rolled back' ELSE 'rolling back' END
	END AS state,
	p.open AS open_operations,
	t.begun_at, t.begun_by, t.expires_at, t.at_limit, d.decided_at, d.decided_by, d.how AS decided_how, t.check_id
FROM retry.global_transaction t
LEFT JOIN retry.global_decision d ON d.gid = t.gid
LEFT JOIN retry.global_message m ON m.id = t.gid
LEFT JOIN retry.scene s ON s.id = t.scene_id
CROSS JOIN LATERAL (
	SELECT count(*)::int AS open
	FROM retry.global_operation o
	WHERE o.gid = t.gid
		AND CASE d.decision
				WHEN 'commit' THEN o.op IN ('confirm', 'commit')
				WHEN 'rollback' THEN o.op NOT IN ('confirm', 'commit')
				ELSE o.op IN ('action', 'try')
			END
		AND NOT EXISTS (SELECT FROM retry.global_outcome x WHERE x.gid = o.gid AND x.branch_no = o.branch_no AND x.op = o.op)) AS p
WHERE t.scene_id IN (SELECT retry.my_scenes(false))
	OR t.scene_id IN (SELECT retry.my_scenes(true)) AND pg_has_role(t.begun_by, 'USAGE');
COMMENT ON VIEW retry.transactions IS 'Global transactions that the current role may decide over, with what is decided';
COMMENT ON COLUMN retry.transactions.gid IS 'Its id; of a message what retry.prepare() returned';
COMMENT ON COLUMN retry.transactions.mode IS 'Its kind: message, saga, tcc or 2pc';
COMMENT ON COLUMN retry.transactions.scene IS 'group/scene';
COMMENT ON COLUMN retry.transactions.key IS 'Idempotency key given by the caller';
COMMENT ON COLUMN retry.transactions.reference IS 'Business number given by the caller';
COMMENT ON COLUMN retry.transactions.state IS 'undecided; committing and rolling back while operations are open that follow from the decision; then committed or rolled back';
COMMENT ON COLUMN retry.transactions.open_operations IS 'Operations that are to be done and have not ended: while it is undecided, actions and tries; then what follows from the decision';
COMMENT ON COLUMN retry.transactions.begun_at IS 'When it was begun';
COMMENT ON COLUMN retry.transactions.begun_by IS 'Role that began it';
COMMENT ON COLUMN retry.transactions.expires_at IS 'at_limit is decided then, if nothing else was; null: no such time';
COMMENT ON COLUMN retry.transactions.at_limit IS 'What is decided when nobody else has: commit or rollback';
COMMENT ON COLUMN retry.transactions.decided_at IS 'When it was decided; null: it is not';
COMMENT ON COLUMN retry.transactions.decided_by IS 'Role that decided; null: no role has';
COMMENT ON COLUMN retry.transactions.decided_how IS 'What decided: caller (retry.commit(), retry.rollback() and the like), check (an answer), limit (nobody has told), answers (of the operations), timeout';
COMMENT ON COLUMN retry.transactions.check_id IS 'The task that decides if nobody else does: it asks about a message, or ends when the time is over; null: none';

CREATE VIEW retry.operations WITH (security_barrier) AS
SELECT o.gid, o.branch_no, o.branch, o.op, o.id AS task_id, x.outcome, x.settled_by
FROM retry.global_transaction t
JOIN retry.global_operation o ON o.gid = t.gid
LEFT JOIN retry.global_outcome x ON x.gid = o.gid AND x.branch_no = o.branch_no AND x.op = o.op
WHERE t.scene_id IN (SELECT retry.my_scenes(false))
	OR t.scene_id IN (SELECT retry.my_scenes(true)) AND pg_has_role(t.begun_by, 'USAGE');
COMMENT ON VIEW retry.operations IS 'Arm of retry.branches: the operations that are stored as such, with how they ended';
COMMENT ON COLUMN retry.operations.gid IS 'The transaction';
COMMENT ON COLUMN retry.operations.branch_no IS 'The branch, from 1';
COMMENT ON COLUMN retry.operations.branch IS 'Its name';
COMMENT ON COLUMN retry.operations.op IS 'The operation';
COMMENT ON COLUMN retry.operations.task_id IS 'The task that it becomes';
COMMENT ON COLUMN retry.operations.outcome IS 'How it ended; null: it has not';
COMMENT ON COLUMN retry.operations.settled_by IS 'Role that said so; null: its task has told';

CREATE VIEW retry.messages WITH (security_barrier) AS
SELECT t.gid, b.op, b.task_id
FROM retry.global_transaction t
CROSS JOIN LATERAL (VALUES ('message', t.gid), ('check', t.check_id)) AS b (op, task_id)
WHERE t.mode = 'message'
	AND (t.scene_id IN (SELECT retry.my_scenes(false))
		 OR t.scene_id IN (SELECT retry.my_scenes(true)) AND pg_has_role(t.begun_by, 'USAGE'));
COMMENT ON VIEW retry.messages IS 'Arm of retry.branches: messages, and who is asked about them';
COMMENT ON COLUMN retry.messages.gid IS 'The transaction';
COMMENT ON COLUMN retry.messages.op IS 'message or check';
COMMENT ON COLUMN retry.messages.task_id IS 'The task that it becomes';

-- how a task stands is asked for its id: a join with retry.tasks would be planned for long
CREATE VIEW retry.branches AS
SELECT
	b.gid, b.branch, b.op, b.task_id, b.outcome, b.settled_by,
	k.state, k.attempts, k.last_status, k.last_error, k.next_due, k.finished_at
FROM (
	SELECT m.gid, 'message' AS branch, m.op, m.task_id, NULL::text AS outcome, NULL::regrole AS settled_by
	FROM retry.messages m
	UNION ALL
	SELECT o.gid, o.branch, o.op, o.task_id, o.outcome, o.settled_by
	FROM retry.operations o) AS b
LEFT JOIN LATERAL retry.task_now(b.task_id) AS k ON true;
COMMENT ON VIEW retry.branches IS 'What global transactions consist of: operations of branches, each with its task; filter on gid';
COMMENT ON COLUMN retry.branches.gid IS 'The transaction';
COMMENT ON COLUMN retry.branches.branch IS 'Name of the branch; message: that of a message';
COMMENT ON COLUMN retry.branches.op IS 'What is done there: message (it is delivered), check (somebody is asked what to do), action, compensate, try, confirm, cancel, commit or rollback';
COMMENT ON COLUMN retry.branches.task_id IS 'The task that does it; it is there when its turn has come';
COMMENT ON COLUMN retry.branches.outcome IS 'How it ended: done, failed, or not begun (rolled back before); null: it has not, or (message, check) its task says it';
COMMENT ON COLUMN retry.branches.settled_by IS 'Role that said so; null: its task has told';
COMMENT ON COLUMN retry.branches.state IS 'State of the task; null: there is none (yet, or any more)';
COMMENT ON COLUMN retry.branches.attempts IS 'Attempts of the task';
COMMENT ON COLUMN retry.branches.last_status IS 'HTTP status of its last attempt';
COMMENT ON COLUMN retry.branches.last_error IS 'What went wrong at its last attempt';
COMMENT ON COLUMN retry.branches.next_due IS 'When its next attempt is due';
COMMENT ON COLUMN retry.branches.finished_at IS 'When it finished';

CREATE VIEW retry.lanes AS
SELECT
	g.name AS group_name, r.lane, r.state, r.in_flight, r.queued, r.due, r.oldest_due, r.rate,
	r.p50, r.p95, r.p99, r.attempts, r.network, r.timeout, r.http_5xx, r.http_4xx, r.throttled, r.other,
	r.breaker, r.breaker_since, r.blocked_until, r.limit_now, r.max_in_flight, r.weight, r.high,
	r.paused, r.disabled, r.overridden, r.last_at, r.last_status, r.last_error, r.lane_hash, r.dispatcher
FROM retry.lane_rows() r
LEFT JOIN retry.scene_group g ON g.id = r.group_id;
COMMENT ON VIEW retry.lanes IS 'Lanes that dispatchers have in memory, as they are now; of groups that the current role owns or was granted, those of the shared group default for its owner and for pg_monitor';
COMMENT ON COLUMN retry.lanes.group_name IS 'The group that it belongs to; null: not known before its first task was looked at';
COMMENT ON COLUMN retry.lanes.lane IS 'Its name, cut after 127 bytes; null: not known before its first task was looked at';
COMMENT ON COLUMN retry.lanes.state IS 'What it does, or what keeps it from sending: idle, waiting (for its turn), sending, full, paused, disabled, breaker, half-open, blocked, slowed, rate, scene rate, budget, targets, order, handed over';
COMMENT ON COLUMN retry.lanes.in_flight IS 'Requests under way';
COMMENT ON COLUMN retry.lanes.queued IS 'Tasks read and waiting in memory';
COMMENT ON COLUMN retry.lanes.due IS 'Tasks that are due and not read yet, an estimate; 0 is exact';
COMMENT ON COLUMN retry.lanes.oldest_due IS 'Earliest due time of what waits; null: nothing does';
COMMENT ON COLUMN retry.lanes.rate IS 'Requests sent a second, over the last seconds';
COMMENT ON COLUMN retry.lanes.p50 IS 'Half of the requests of the last minutes ended within this time';
COMMENT ON COLUMN retry.lanes.p95 IS '95 of 100 did within this';
COMMENT ON COLUMN retry.lanes.p99 IS '99 of 100 did within this';
COMMENT ON COLUMN retry.lanes.attempts IS 'Attempts that have ended since the lane came to memory; those below did not succeed';
COMMENT ON COLUMN retry.lanes.network IS 'Without an answer, but for timeouts';
COMMENT ON COLUMN retry.lanes.timeout IS 'Without an answer in time';
COMMENT ON COLUMN retry.lanes.http_5xx IS 'With an answer of 5xx, but for those that count as throttled';
COMMENT ON COLUMN retry.lanes.http_4xx IS 'With an answer of 4xx, but for 429';
COMMENT ON COLUMN retry.lanes.throttled IS 'With a 429, or a 503 with Retry-After';
COMMENT ON COLUMN retry.lanes.other IS 'For other reasons: not sent, a rule of the scene, a function that failed';
COMMENT ON COLUMN retry.lanes.breaker IS 'closed, open, half-open';
COMMENT ON COLUMN retry.lanes.breaker_since IS 'When it opened; null: it is closed';
COMMENT ON COLUMN retry.lanes.blocked_until IS 'Until when nothing is sent: as an answer asked, or until the breaker probes; null: nobody said so';
COMMENT ON COLUMN retry.lanes.limit_now IS 'Requests that it may have under way now';
COMMENT ON COLUMN retry.lanes.max_in_flight IS 'As its scene or an override says; null: retry.lane_max_in_flight';
COMMENT ON COLUMN retry.lanes.weight IS 'Its share against others';
COMMENT ON COLUMN retry.lanes.high IS 'True: served before those that are not';
COMMENT ON COLUMN retry.lanes.paused IS 'By retry.lane_override';
COMMENT ON COLUMN retry.lanes.disabled IS 'By retry.lane_override';
COMMENT ON COLUMN retry.lanes.overridden IS 'There is a row of retry.lane_override for it';
COMMENT ON COLUMN retry.lanes.last_at IS 'When its last attempt ended';
COMMENT ON COLUMN retry.lanes.last_status IS 'HTTP status of that; null: there was none';
COMMENT ON COLUMN retry.lanes.last_error IS 'The last error in words';
COMMENT ON COLUMN retry.lanes.lane_hash IS 'Its number';
COMMENT ON COLUMN retry.lanes.dispatcher IS 'Number of the dispatcher that it belongs to';

/*
 * Statistics: what is stored, and what is not yet.  Minutes that upkeep has not
 * added up to hours are added up here, and so on.
 */
CREATE VIEW retry.minute_rows AS
SELECT m.at, m.scene_id, m.enqueued, m.succeeded, m.failed, m.processing, m.stopped, m.expired, m.blocked, m.error,
	m.retries, m.dead, m.cancelled, m.busy_us, m.late_us, m.latency
FROM retry.stat_minute m
UNION ALL
SELECT r.minute, r.scene_id, r.enqueued, r.succeeded, r.failed, r.processing, r.stopped, r.expired, r.blocked, r.error,
	r.retries, r.dead, r.cancelled, r.busy_us, r.late_us, r.latency
FROM retry.scene_rows() r
WHERE r.minute IS NOT NULL;
COMMENT ON VIEW retry.minute_rows IS 'Statistics of minutes, with the one that is not over; what retry.stats is made from';

CREATE VIEW retry.hour_rows AS
SELECT h.at, h.scene_id, h.enqueued, h.succeeded, h.failed, h.processing, h.stopped, h.expired, h.blocked, h.error,
	h.retries, h.dead, h.cancelled, h.busy_us, h.late_us, h.latency
FROM retry.stat_hour h
UNION ALL
SELECT date_trunc('hour', m.at), m.scene_id, m.enqueued, m.succeeded, m.failed, m.processing, m.stopped, m.expired, m.blocked, m.error,
	m.retries, m.dead, m.cancelled, m.busy_us, m.late_us, m.latency
FROM retry.minute_rows m
WHERE m.at >= (SELECT coalesce(max(h.at) + interval '1 hour', '-infinity') FROM retry.stat_hour h);
COMMENT ON VIEW retry.hour_rows IS 'The same of hours, some in pieces';

CREATE VIEW retry.day_rows AS
SELECT d.at, d.scene_id, d.enqueued, d.succeeded, d.failed, d.processing, d.stopped, d.expired, d.blocked, d.error,
	d.retries, d.dead, d.cancelled, d.busy_us, d.late_us, d.latency
FROM retry.stat_day d
UNION ALL
SELECT date_trunc('day', h.at, current_setting('log_timezone')), h.scene_id, h.enqueued, h.succeeded, h.failed, h.processing, h.stopped, h.expired, h.blocked, h.error,
	h.retries, h.dead, h.cancelled, h.busy_us, h.late_us, h.latency
FROM retry.hour_rows h
WHERE h.at >= (
	SELECT coalesce(date_trunc('day', max(d.at) + interval '36 hours', current_setting('log_timezone')), '-infinity')
	FROM retry.stat_day d);
COMMENT ON VIEW retry.day_rows IS 'The same of days, some in pieces';

CREATE VIEW retry.stats WITH (security_barrier) AS
SELECT
	r.per, r.at, s.group_name || '/' || s.name AS scene, r.enqueued,
	r.succeeded + r.failed + r.processing + r.stopped + r.expired + r.blocked + r.error AS attempts,
	r.succeeded, r.failed, r.processing, r.stopped, r.expired, r.blocked, r.error, r.retries, r.dead, r.cancelled,
	retry.percentile(r.latency, 0.5) AS p50,
	retry.percentile(r.latency, 0.95) AS p95,
	retry.percentile(r.latency, 0.99) AS p99,
	r.busy_us * interval '1 us' AS busy,
	r.late_us * interval '1 us' AS late,
	r.latency
FROM (
	SELECT x.per, x.at, x.scene_id, sum(x.enqueued)::bigint AS enqueued,
		sum(x.succeeded)::bigint AS succeeded, sum(x.failed)::bigint AS failed,
		sum(x.processing)::bigint AS processing, sum(x.stopped)::bigint AS stopped,
		sum(x.expired)::bigint AS expired, sum(x.blocked)::bigint AS blocked,
		sum(x.error)::bigint AS error, sum(x.retries)::bigint AS retries,
		sum(x.dead)::bigint AS dead, sum(x.cancelled)::bigint AS cancelled,
		sum(x.busy_us)::float8 AS busy_us, max(x.late_us) AS late_us, retry.latency_sum(x.latency) AS latency
	FROM (
		SELECT 'minute' AS per, m.* FROM retry.minute_rows m
		UNION ALL SELECT 'hour', h.* FROM retry.hour_rows h
		UNION ALL SELECT 'day', d.* FROM retry.day_rows d) AS x
	GROUP BY x.per, x.at, x.scene_id) AS r
JOIN retry.scene s ON s.id = r.scene_id
JOIN retry.scene_group g ON g.name = s.group_name
WHERE g.id IN (SELECT retry.my_groups());
COMMENT ON VIEW retry.stats IS 'What became of the tasks of each scene, by the minute, the hour and the day, up to now; filter on per and at. Of groups that the current role owns or was granted, those of the shared group default for its owner and for pg_monitor';
COMMENT ON COLUMN retry.stats.per IS 'minute, hour or day';
COMMENT ON COLUMN retry.stats.at IS 'When that begins; days as the time zone of log_timezone has them';
COMMENT ON COLUMN retry.stats.scene IS 'group/scene';
COMMENT ON COLUMN retry.stats.enqueued IS 'Tasks that have come';
COMMENT ON COLUMN retry.stats.attempts IS 'Attempts that have ended';
COMMENT ON COLUMN retry.stats.succeeded IS 'Attempts that succeeded, each of which ended a task';
COMMENT ON COLUMN retry.stats.failed IS 'Attempts that failed and may be tried again';
COMMENT ON COLUMN retry.stats.processing IS 'Attempts whose receiver asked to be asked later';
COMMENT ON COLUMN retry.stats.stopped IS 'Attempts after which the task is not to be tried again';
COMMENT ON COLUMN retry.stats.expired IS 'Tasks that had no time left';
COMMENT ON COLUMN retry.stats.blocked IS 'Attempts to an address that is not allowed';
COMMENT ON COLUMN retry.stats.error IS 'Attempts that could not be made or recorded properly';
COMMENT ON COLUMN retry.stats.retries IS 'Attempts that were not the first of their tasks';
COMMENT ON COLUMN retry.stats.dead IS 'Tasks that died';
COMMENT ON COLUMN retry.stats.cancelled IS 'Tasks that were cancelled';
COMMENT ON COLUMN retry.stats.p50 IS 'Half of the attempts that were sent took no longer';
COMMENT ON COLUMN retry.stats.p95 IS '95 of 100 took no longer';
COMMENT ON COLUMN retry.stats.p99 IS '99 of 100 took no longer';
COMMENT ON COLUMN retry.stats.busy IS 'How long all attempts took together';
COMMENT ON COLUMN retry.stats.late IS 'How late after its due time the latest attempt was begun';
COMMENT ON COLUMN retry.stats.latency IS 'The histogram that the percentiles are of: to be added up by retry.latency_sum() and read by retry.percentile()';

/*
 * Counting millions of tasks takes seconds, so they are counted by upkeep, and
 * what has come and gone since is added.
 */
CREATE VIEW retry.task_counts AS
SELECT c.scene_id, sum(c.pending)::bigint AS pending, sum(c.retrying)::bigint AS retrying, sum(c.dead)::bigint AS dead
FROM (
	SELECT b.scene_id, b.pending, b.retrying, b.dead FROM retry.scene_count b
	UNION ALL
	SELECT x.scene_id, x.pending, x.retrying, x.dead FROM retry.count_change x
	WHERE NOT pg_visible_in_snapshot(x.xid, (SELECT k.boundary FROM retry.counted k))
	UNION ALL
	SELECT r.scene_id, r.pending, r.retrying, r.dead FROM retry.scene_rows() r) AS c
GROUP BY c.scene_id;
COMMENT ON VIEW retry.task_counts IS 'How many tasks wait in each scene, those under way with them, and how many dead letters there are; for retry.overview';

CREATE FUNCTION retry.limit_rows(
	OUT group_id		int,
	OUT pending			bigint,
	OUT lanes			int,
	OUT enqueue_left	bigint,
	OUT refused			bigint,
	OUT refused_at		timestamptz
) RETURNS SETOF record
LANGUAGE C VOLATILE STRICT PARALLEL SAFE ROWS 10 AS 'MODULE_PATHNAME', 'retry_limit_rows';
COMMENT ON FUNCTION retry.limit_rows() IS
'What groups use of their limits, of those that the current role may see; look at retry.limits instead';

CREATE VIEW retry.limits WITH (security_barrier) AS
SELECT
	g.name AS group_name, g.max_pending, r.pending, g.max_lanes, CASE WHEN g.max_lanes IS NOT NULL THEN r.lanes END AS lanes, g.max_enqueue_rate, r.enqueue_left, r.refused, r.refused_at,
	g.max_body_size, g.max_headers, g.max_headers_size
FROM retry.scene_group g
LEFT JOIN retry.limit_rows() r ON r.group_id = g.id
WHERE g.id IN (SELECT retry.my_groups())
	AND coalesce(g.max_pending, g.max_lanes, g.max_body_size, g.max_headers, g.max_headers_size,
		CASE WHEN g.max_enqueue_rate IS NOT NULL THEN 0 END) IS NOT NULL;
COMMENT ON VIEW retry.limits IS 'Groups that have limits, and what they use of them; those of the shared group default for its owner and for pg_monitor';
COMMENT ON COLUMN retry.limits.group_name IS 'The group';
COMMENT ON COLUMN retry.limits.max_pending IS 'As in retry.scene_group';
COMMENT ON COLUMN retry.limits.pending IS 'Tasks without an outcome, those of transactions under way with them; null: not counted yet';
COMMENT ON COLUMN retry.limits.max_lanes IS 'As in retry.scene_group';
COMMENT ON COLUMN retry.limits.lanes IS 'Lanes that tasks without an outcome are in; null: not counted yet, and until then nothing is refused for them';
COMMENT ON COLUMN retry.limits.max_enqueue_rate IS 'As in retry.scene_group';
COMMENT ON COLUMN retry.limits.enqueue_left IS 'How many tasks it may enqueue now; null: none was enqueued since the rate was set';
COMMENT ON COLUMN retry.limits.refused IS 'Calls that were refused for max_pending, max_lanes or max_enqueue_rate, since the server''s start or the first of these limits was set';
COMMENT ON COLUMN retry.limits.refused_at IS 'When the last of them was';
COMMENT ON COLUMN retry.limits.max_body_size IS 'As in retry.scene_group';
COMMENT ON COLUMN retry.limits.max_headers IS 'As in retry.scene_group';
COMMENT ON COLUMN retry.limits.max_headers_size IS 'As in retry.scene_group';

CREATE VIEW retry.overview WITH (security_barrier) AS
SELECT
	s.group_name || '/' || s.name AS scene,
	CASE
		WHEN s.archived THEN 'archived'
		WHEN g.paused THEN 'group paused'
		WHEN s.paused THEN 'scene paused'
		WHEN EXISTS (SELECT FROM retry.missing_secrets m WHERE m.scene_id = s.id) THEN 'missing secret'
		ELSE 'active'
	END AS state,
	greatest(coalesce(c.pending, 0) - coalesce(w.first, 0), 0) AS pending,
	coalesce(w.running, 0) AS running,
	greatest(coalesce(c.retrying, 0) - coalesce(w.running - w.first, 0), 0) AS retrying,
	greatest(coalesce(c.dead, 0), 0) AS dead,
	least(l.oldest_due, r.held_due) AS oldest_due,
	coalesce(r.enqueued_rate, 0) AS enqueued_rate,
	coalesce(r.attempt_rate, 0) AS attempt_rate,
	coalesce(r.failed_rate, 0) AS failed_rate,
	retry.percentile(r.recent, 0.5) AS p50,
	retry.percentile(r.recent, 0.95) AS p95,
	retry.percentile(r.recent, 0.99) AS p99,
	coalesce(d.enqueued, 0)::bigint AS enqueued_day,
	coalesce(d.succeeded, 0)::bigint AS succeeded_day,
	coalesce(d.dead, 0)::bigint AS died_day,
	coalesce(d.cancelled, 0)::bigint AS cancelled_day,
	(SELECT k.at FROM retry.counted k) AS counted_at
FROM retry.scene s
JOIN retry.scene_group g ON g.name = s.group_name
LEFT JOIN retry.task_counts c ON c.scene_id = s.id
LEFT JOIN retry.scene_running() w ON w.scene_id = s.id
LEFT JOIN (
	SELECT u.scene_id, min(x.oldest_due) AS oldest_due
	FROM retry.lane_rows() x, unnest(x.scenes) u (scene_id)
	GROUP BY u.scene_id) l ON l.scene_id = s.id
LEFT JOIN (
	SELECT x.scene_id, min(x.held_due) AS held_due, sum(x.enqueued_rate) AS enqueued_rate,
		sum(x.attempt_rate) AS attempt_rate, sum(x.failed_rate) AS failed_rate, retry.latency_sum(x.recent) AS recent
	FROM retry.scene_rows() x
	GROUP BY x.scene_id) r ON r.scene_id = s.id
LEFT JOIN (
	SELECT h.scene_id, sum(h.enqueued) AS enqueued, sum(h.succeeded) AS succeeded, sum(h.dead) AS dead, sum(h.cancelled) AS cancelled
	FROM retry.hour_rows h
	WHERE h.at >= date_trunc('hour', now()) - interval '23 hours'
	GROUP BY h.scene_id) d ON d.scene_id = s.id
WHERE g.id IN (SELECT retry.my_groups());
COMMENT ON VIEW retry.overview IS 'Each scene as it is now, in one row: cheap however many tasks wait. Of groups that the current role owns or was granted, those of the shared group default for its owner and for pg_monitor';
COMMENT ON COLUMN retry.overview.scene IS 'group/scene';
COMMENT ON COLUMN retry.overview.state IS 'active, or why nothing of it is sent or taken: archived, group paused, scene paused, missing secret';
COMMENT ON COLUMN retry.overview.pending IS 'Tasks without an attempt: counted by upkeep (counted_at) and kept up to date since; after a crash, up to a minute of changes may be missing until it counts again';
COMMENT ON COLUMN retry.overview.running IS 'Attempts under way, exactly';
COMMENT ON COLUMN retry.overview.retrying IS 'Tasks whose last attempt asks for another, counted as pending ones are';
COMMENT ON COLUMN retry.overview.dead IS 'Dead letters that are kept, replayed ones too, counted as pending ones are';
COMMENT ON COLUMN retry.overview.oldest_due IS 'Earliest due time of what waits in lanes that the scene uses, or is held back by a pause; where scenes share a lane, it may be another''s; null: nothing waits';
COMMENT ON COLUMN retry.overview.enqueued_rate IS 'Tasks that come a second, over the last seconds';
COMMENT ON COLUMN retry.overview.attempt_rate IS 'Attempts that end a second';
COMMENT ON COLUMN retry.overview.failed_rate IS 'Of these, those that did not succeed';
COMMENT ON COLUMN retry.overview.p50 IS 'Half of the attempts of the last minutes took no longer';
COMMENT ON COLUMN retry.overview.p95 IS '95 of 100 took no longer';
COMMENT ON COLUMN retry.overview.p99 IS '99 of 100 took no longer';
COMMENT ON COLUMN retry.overview.enqueued_day IS 'Tasks that have come in this hour and the 23 before';
COMMENT ON COLUMN retry.overview.succeeded_day IS 'Tasks that have succeeded in that time';
COMMENT ON COLUMN retry.overview.died_day IS 'Tasks that have died';
COMMENT ON COLUMN retry.overview.cancelled_day IS 'Tasks that were cancelled';
COMMENT ON COLUMN retry.overview.counted_at IS 'When tasks and dead letters were last counted';

/*
 * Alarms: what fires now, what of it is news, and whom that is told.  The worker
 * that looks calls retry.look_at_alarms() and enqueues what it returns.
 */
CREATE FUNCTION retry.alarm_subjects(at timestamptz)
RETURNS TABLE (rule_id int, subject text, detail text)
LANGUAGE sql STABLE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
	WITH rule AS (
		SELECT a.*, g.id AS group_id, pg_has_role(g.owner, 'pg_monitor', 'USAGE') AS sees_all, coalesce(a.threshold, CASE a.condition WHEN 'failure_ratio' THEN 0.5 ELSE 1 END) AS least
		FROM retry.alarm_rule a
		JOIN retry.scene_group g ON g.name = a.group_name
		WHERE a.active),
	watched AS (	-- never what belongs to channels: an alarm must not feed on itself
		SELECT r.id AS rule_id, r.condition, r.least, r.min_attempts, r.period, r.age, s.id AS scene_id,
			s.group_name || '/' || s.name AS scene
		FROM rule r
		JOIN retry.scene s ON s.group_name = r.group_name AND s.name = coalesce(r.scene, s.name)
		WHERE NOT EXISTS (SELECT FROM retry.channel c WHERE c.scene_id = s.id)),
	counted AS (
		SELECT p.period, m.scene_id, sum(m.enqueued) AS enqueued, sum(m.succeeded) AS succeeded, sum(m.dead) AS dead,
			sum(m.cancelled) AS cancelled, sum(m.error) AS errors,
			sum(m.failed + m.stopped + m.expired + m.blocked + m.error) AS failed
		FROM (
			SELECT DISTINCT r.period FROM rule r
			WHERE r.condition IN ('dead', 'failure_ratio', 'errors', 'growth', 'channel')) p
		JOIN retry.minute_rows m ON m.at > alarm_subjects.at - p.period - interval '1 min'
		GROUP BY p.period, m.scene_id),
	lane AS (
		SELECT l.group_id, l.lane, l.state, l.breaker, l.oldest_due, l.scenes FROM retry.lane_rows() l
		WHERE EXISTS (SELECT FROM rule r WHERE r.condition IN ('oldest_due', 'breaker', 'no_target', 'channel'))),
	due AS (
		SELECT u.scene_id, min(l.oldest_due) AS oldest FROM lane l, unnest(l.scenes) AS u (scene_id) GROUP BY u.scene_id),
	waiting AS (
		SELECT c.scene_id, c.pending, c.retrying FROM retry.task_counts c
		WHERE EXISTS (SELECT FROM rule r WHERE r.condition IN ('pending', 'retrying')))
	SELECT w.rule_id, w.scene,
		CASE w.condition
			WHEN 'dead' THEN format('%s dead letters in %s', c.dead, retry.brief(w.period))
			WHEN 'errors' THEN format('%s errors in %s', c.errors, retry.brief(w.period))
			WHEN 'growth' THEN format('%s more tasks wait than %s ago', c.enqueued - c.succeeded - c.dead - c.cancelled, retry.brief(w.period))
			ELSE format('%s%% of %s attempts failed in %s', round(100.0 * c.failed / (c.failed + c.succeeded)), c.failed + c.succeeded,
				retry.brief(w.period))
		END
	FROM watched w
	JOIN counted c ON c.scene_id = w.scene_id AND c.period = w.period
	WHERE CASE w.condition
			WHEN 'dead' THEN c.dead >= w.least
			WHEN 'errors' THEN c.errors >= w.least
			WHEN 'growth' THEN c.enqueued - c.succeeded - c.dead - c.cancelled >= w.least
			WHEN 'failure_ratio' THEN c.failed + c.succeeded >= w.min_attempts AND c.failed >= w.least * (c.failed + c.succeeded)
		END
	UNION ALL
	SELECT w.rule_id, w.scene,
		format(CASE w.condition WHEN 'pending' THEN '%s tasks wait for their first attempt' ELSE '%s tasks wait for another attempt' END, n.count)
	FROM watched w
	JOIN waiting t ON t.scene_id = w.scene_id,
		LATERAL (SELECT CASE w.condition WHEN 'pending' THEN t.pending WHEN 'retrying' THEN t.retrying END) AS n (count)
	WHERE n.count >= w.least
	UNION ALL
	SELECT w.rule_id, w.scene, format('due for %s', retry.brief(alarm_subjects.at - d.oldest))
	FROM watched w
	JOIN due d ON d.scene_id = w.scene_id
	WHERE w.condition = 'oldest_due' AND d.oldest < alarm_subjects.at - w.age
	UNION ALL
	SELECT r.id, l.lane, min(l.what)
	FROM rule r
	JOIN (
		SELECT 'breaker', l.group_id, l.lane, l.scenes, format('breaker is %s', l.breaker) FROM lane l WHERE l.breaker <> 'closed'
		UNION ALL
		SELECT 'no_target', l.group_id, l.lane, l.scenes, 'no healthy target' FROM lane l WHERE l.state = 'targets'
		UNION ALL
		SELECT 'disabled', g.id, o.lane, NULL, 'lane is disabled'
		FROM retry.lane_override o JOIN retry.scene_group g ON g.name = o.group_name
		WHERE o.disabled) AS l (condition, group_id, lane, scenes, what) ON l.condition = r.condition AND l.group_id = r.group_id
	WHERE r.scene IS NULL AND l.scenes IS NULL OR EXISTS (
		SELECT FROM watched w WHERE w.rule_id = r.id AND w.scene_id = ANY (l.scenes))
	GROUP BY r.id, l.lane
	UNION ALL	-- one that opens for seconds only
	SELECT w.rule_id, e.lane, 'breaker opened'
	FROM (SELECT max(r.period) FROM rule r WHERE r.condition = 'breaker') AS p (longest)
	JOIN retry.event e ON e.at > alarm_subjects.at - p.longest AND e.kind = 'breaker opened'
	JOIN watched w ON w.condition = 'breaker' AND w.scene_id = e.scene_id AND e.at > alarm_subjects.at - w.period
	WHERE NOT EXISTS (SELECT FROM lane l WHERE l.lane = e.lane AND l.group_id = e.group_id AND l.breaker <> 'closed')
	GROUP BY w.rule_id, e.lane
	UNION ALL
	SELECT w.rule_id, d.url, format('URL is disabled in scene %s', w.scene)
	FROM watched w
	JOIN retry.disabled_url d ON d.scene_id = w.scene_id
	WHERE w.condition = 'disabled'
	GROUP BY w.rule_id, d.url, w.scene
	UNION ALL
	SELECT r.id, c.name, CASE WHEN n.dead >= r.least THEN format('%s messages were not taken', n.dead)
		ELSE format('a message waits for %s', retry.brief(alarm_subjects.at - d.oldest)) END
	FROM rule r
	JOIN retry.channel c ON c.group_name = r.group_name
	LEFT JOIN counted n ON n.scene_id = c.scene_id AND n.period = r.period
	LEFT JOIN due d ON d.scene_id = c.scene_id
	WHERE r.condition = 'channel' AND (n.dead >= r.least OR d.oldest < alarm_subjects.at - r.age)
	UNION ALL
	-- asked by the worker, these two name groups of others
	SELECT r.id, h.check_name, CASE WHEN r.sees_all OR h.check_name NOT IN ('limits', 'tls') THEN h.detail ELSE format('is %s', h.status) END
	FROM rule r, LATERAL (SELECT * FROM retry.health() x WHERE r.condition = 'health') h
	WHERE r.condition = 'health' AND (h.status = 'critical' OR h.status = 'warning' AND r.least < 2)
	UNION ALL
	SELECT r.id, current_database(), format('%s on disk', pg_size_pretty(z.bytes))
	FROM rule r, LATERAL (SELECT pg_database_size(current_database()) WHERE r.condition = 'disk') AS z (bytes)
	WHERE r.condition = 'disk' AND z.bytes >= r.least
$$;
COMMENT ON FUNCTION retry.alarm_subjects(timestamptz) IS
'Scenes, lanes, URLs, channels and checks for which the conditions of rules hold at that moment, and how; for retry.look_at_alarms()';

CREATE FUNCTION retry.alarm_message(group_name text, at timestamptz, alarms jsonb) RETURNS jsonb
LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
	SELECT jsonb_build_object('type', 'retry.alarm', 'database', current_database(), 'group', group_name, 'at', at,
		'state', CASE WHEN firing > 0 THEN 'firing' ELSE 'recovered' END,
		'severity', (ARRAY['info', 'warning', 'error', 'critical'])[coalesce(worst, 1)],
		'title', format('%s on %s: %s', group_name, current_database(), CASE
			WHEN firing + over = 1 THEN format('%s %s', one, CASE firing WHEN 1 THEN 'is firing' ELSE 'is over' END)
			ELSE concat_ws(', ', nullif(firing, 0) || ' alarms are firing', nullif(over, 0) || ' are over') END),
		'text', lines, 'alarms', alarms)
	FROM (
		SELECT count(*) FILTER (WHERE a ->> 'state' <> 'recovered') AS firing,
			count(*) FILTER (WHERE a ->> 'state' = 'recovered') AS over,
			max(array_position(ARRAY['info', 'warning', 'error', 'critical'], a ->> 'severity'))
				FILTER (WHERE a ->> 'state' <> 'recovered') AS worst,
			min(a ->> 'rule') AS one,
			string_agg(format('%s %s (%s): %s%s', upper(a ->> 'state'), a ->> 'rule', a ->> 'severity', a ->> 'summary',
				'. ' || nullif(a ->> 'description', '')), E'\n' ORDER BY n) AS lines
		FROM jsonb_array_elements(alarms) WITH ORDINALITY AS e (a, n)) AS x
$$;
COMMENT ON FUNCTION retry.alarm_message(text, timestamptz, jsonb) IS 'The document that tells of some alarms of a group';

CREATE FUNCTION retry.channel_body(kind text, template text, message jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
	SELECT CASE
		WHEN kind = 'slack' THEN jsonb_build_object('text',
			replace(replace(replace(left(format(E'%s\n%s', message ->> 'title', message ->> 'text'), 10000), '&', '&amp;'), '<', '&lt;'), '>', '&gt;'))
		WHEN kind = 'dingtalk' THEN jsonb_build_object('msgtype', 'text', 'text', jsonb_build_object('content',
			left(format(E'%s\n%s', message ->> 'title', message ->> 'text'), 4000)))
		WHEN kind = 'feishu' THEN jsonb_build_object('msg_type', 'text', 'content', jsonb_build_object('text',
			left(format(E'%s\n%s', message ->> 'title', message ->> 'text'), 4000)))
		WHEN kind = 'pagerduty' THEN jsonb_build_object(
			'event_action', CASE message ->> 'state' WHEN 'recovered' THEN 'resolve' ELSE 'trigger' END,
			'dedup_key', format('retry/%s/%s/%s', message ->> 'database', message ->> 'group', message #>> '{alarms,0,rule}'),
			'client', 'retry',
			'payload', jsonb_build_object('summary', left(format('%s: %s', message ->> 'title', message #>> '{alarms,0,summary}'), 1000),
				'source', message ->> 'database', 'severity', message #>> '{alarms,0,severity}', 'timestamp', message -> 'at',
				'group', message ->> 'group', 'class', message #>> '{alarms,0,condition}', 'custom_details', message #> '{alarms,0}'))
		-- 2048 bytes at most, and a letter may take four
		WHEN kind = 'wecom' THEN jsonb_build_object('msgtype', 'text', 'text', jsonb_build_object('content',
			left(format(E'%s\n%s', message ->> 'title', message ->> 'text'), 500)))
		WHEN kind = 'email' THEN jsonb_build_object('subject', left(message ->> 'title', 200),
			'text', left(format(E'%s\n\n%s-- \ndatabase %s, group %s, %s\n', message ->> 'text', (
				SELECT string_agg(format(E'%s, since %s:\n%s\n', a ->> 'rule', a ->> 'since', (
					SELECT string_agg(format(E'  %s: %s\n', s ->> 'subject', s ->> 'detail'), '' ORDER BY m)
					FROM jsonb_array_elements(a -> 'subjects') WITH ORDINALITY AS e (s, m))), '' ORDER BY n)
				FROM jsonb_array_elements(message -> 'alarms') WITH ORDINALITY AS f (a, n)
				WHERE a -> 'subjects' <> '[]'),
			message ->> 'database', message ->> 'group', message ->> 'at'), 50000))
		WHEN template IS NOT NULL THEN retry.fill_template(template, message)::jsonb
		ELSE message
	END
$$;
COMMENT ON FUNCTION retry.channel_body(text, text, jsonb) IS 'A message as a receiver of that kind understands it';

/*
 * An alarm is news when it began or ended since it was last told, or when there
 * is more to it.  When some news has lasted for the rule's "collect", all that a
 * group has is told, but for rules that were told less than "quiet" ago.
 */
CREATE FUNCTION retry.look_at_alarms(at timestamptz)
RETURNS TABLE (owner regrole, target text, payload jsonb, rules int[])
LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	moment	CONSTANT timestamptz := look_at_alarms.at;
BEGIN
	LOCK TABLE retry.alarm_state IN SHARE ROW EXCLUSIVE MODE;	-- one looks at a time
	INSERT INTO retry.alarm_state AS s (rule_id, firing, since, subjects, details, changed_at)
	SELECT a.id, f.rule_id IS NOT NULL, moment, coalesce(f.subjects, '{}'), coalesce(f.details, '[]'), moment
	FROM retry.alarm_rule a
	LEFT JOIN (
		SELECT x.rule_id, array_agg(x.subject ORDER BY x.subject COLLATE "C") AS subjects,
			jsonb_agg(jsonb_build_object('subject', x.subject, 'detail', x.detail) ORDER BY x.subject COLLATE "C")
				FILTER (WHERE x.n <= 20) AS details
		FROM (
			SELECT y.*, row_number() OVER (PARTITION BY y.rule_id ORDER BY y.subject COLLATE "C") AS n
			FROM retry.alarm_subjects(moment) y) AS x
		WHERE x.n <= 1000
		GROUP BY x.rule_id) f ON f.rule_id = a.id
	WHERE f.rule_id IS NOT NULL OR EXISTS (SELECT FROM retry.alarm_state o WHERE o.rule_id = a.id AND (o.firing OR o.told))
	ON CONFLICT (rule_id) DO UPDATE SET
		firing = excluded.firing,
		since = CASE WHEN excluded.firing = s.firing THEN s.since ELSE moment END,
		subjects = excluded.subjects,
		details = excluded.details,
		changed_at = CASE
			WHEN excluded.firing = s.told AND excluded.subjects <@ s.told_subjects OR NOT excluded.firing AND NOT s.told THEN NULL
			WHEN NOT excluded.firing AND s.firing THEN moment
			ELSE coalesce(s.changed_at, moment)
		END
	WHERE (s.firing, s.subjects, s.details) IS DISTINCT FROM (excluded.firing, excluded.subjects, excluded.details);

	INSERT INTO retry.event (at, group_id, kind, detail)
	SELECT moment, g.id, CASE WHEN s.firing THEN 'alarm fires' ELSE 'alarm over' END,
		left(format('%s (%s)%s', a.name, a.condition, (
			SELECT ': ' || string_agg(format('%s %s', d ->> 'subject', d ->> 'detail'), '; ' ORDER BY n)
			FROM jsonb_array_elements(s.details) WITH ORDINALITY AS e (d, n) WHERE n <= 5)), 1000)
	FROM retry.alarm_state s
	JOIN retry.alarm_rule a ON a.id = s.rule_id
	JOIN retry.scene_group g ON g.name = a.group_name
	WHERE s.since = moment;

	RETURN QUERY
	WITH ripe AS (
		SELECT DISTINCT a.group_name
		FROM retry.alarm_state s
		JOIN retry.alarm_rule a ON a.id = s.rule_id
		WHERE s.changed_at + a.collect <= moment AND coalesce(s.told_at + a.quiet <= moment, true)),
	telling AS (
		UPDATE retry.alarm_state s
		SET told = s.firing, told_at = moment, told_subjects = s.subjects, changed_at = NULL, error = NULL
		FROM retry.alarm_rule a, retry.alarm_state o
		WHERE a.id = s.rule_id AND o.rule_id = s.rule_id AND coalesce(s.told_at + a.quiet <= moment, true)
			AND (s.changed_at IS NOT NULL AND a.group_name IN (SELECT r.group_name FROM ripe r)
				OR s.changed_at IS NULL AND s.firing AND s.told AND s.told_at + a.remind_after <= moment)
		RETURNING s.*, o.told AS was_told, o.told_at AS was_told_at, a.group_name, a.name, a.condition, a.severity, a.channels,
			a.description, a.tell_recovery),
	alarm AS (
		SELECT t.*, jsonb_build_object('rule', t.name, 'condition', t.condition, 'severity', t.severity,
			'state', CASE WHEN NOT t.firing THEN 'recovered' WHEN t.was_told THEN 'still firing' ELSE 'firing' END,
			'since', t.since, 'count', cardinality(t.subjects), 'subjects', t.details, 'description', coalesce(t.description, ''),
			'summary', CASE WHEN t.firing THEN (
					SELECT string_agg(format('%s %s', d ->> 'subject', d ->> 'detail'), '; ' ORDER BY n)
					FROM jsonb_array_elements(t.details) WITH ORDINALITY AS e (d, n) WHERE n <= 5)
					|| CASE WHEN cardinality(t.subjects) > 5 THEN format('; and %s more', cardinality(t.subjects) - 5) ELSE '' END
				ELSE 'it is over' END) AS document
		FROM telling t
		WHERE t.firing OR t.tell_recovery),
	message AS (
		SELECT c.group_name, c.kind, c.template, c.mail_to, c.scene_id, jsonb_agg(m.document ORDER BY m.name) AS alarms, array_agg(m.rule_id) AS rules
		FROM alarm m
		JOIN retry.channel c ON c.group_name = m.group_name AND c.name = ANY (m.channels)
		-- that a channel fails is not told through it
		WHERE m.condition <> 'channel' OR c.name <> ALL (m.subjects)
		-- an event of PagerDuty is about one alarm
		GROUP BY c.group_name, c.name, CASE c.kind WHEN 'pagerduty' THEN m.rule_id END)
	SELECT g.owner, s.group_name || '/' || s.name,
		retry.channel_body(m.kind, m.template, retry.alarm_message(m.group_name, moment, m.alarms))
			|| CASE WHEN r.recipient IS NULL THEN '{}' ELSE jsonb_build_object('to', r.recipient) END, m.rules
	FROM message m
	-- a mail is enqueued for each of its recipients, so that one who is refused is alone with it
	CROSS JOIN unnest(coalesce(m.mail_to, '{NULL}')) WITH ORDINALITY AS r (recipient, n)
	JOIN retry.scene s ON s.id = m.scene_id
	JOIN retry.scene_group g ON g.name = m.group_name
	ORDER BY s.name, m.alarms #>> '{0,rule}', r.n;
END
$$;
COMMENT ON FUNCTION retry.look_at_alarms(timestamptz) IS
'Finds out which alarms fire as of that moment, notes it in retry.alarm_state, and returns the messages that are to be sent; the worker that looks at alarms calls it';

CREATE FUNCTION retry.alarms_rest() RETURNS boolean
LANGUAGE sql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
	SELECT NOT EXISTS (SELECT FROM retry.alarm_state s WHERE s.firing OR s.told OR s.changed_at IS NOT NULL)
		AND NOT EXISTS (SELECT FROM retry.alarm_rule a WHERE a.active AND a.condition IN ('health', 'disk'))
		AND NOT EXISTS (SELECT FROM retry.task_counts c WHERE c.pending > 0 OR c.retrying > 0)
		AND NOT EXISTS (
			SELECT FROM retry.minute_rows m
			WHERE m.at > clock_timestamp() - (SELECT max(a.period) FROM retry.alarm_rule a WHERE a.active) - interval '2 min')
$$;
COMMENT ON FUNCTION retry.alarms_rest() IS
'True when no alarm can begin or end before something is enqueued, sent or changed; for the worker that looks at alarms';

CREATE FUNCTION retry.test_channel(name text, group_name text DEFAULT 'default') RETURNS uuid
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	c		retry.channel;
	alarm	CONSTANT jsonb := jsonb_build_array(jsonb_build_object('rule', 'test', 'condition', 'test', 'severity', 'info',
		'state', 'firing', 'since', now(), 'count', 0, 'subjects', '[]'::jsonb, 'description', '',
		'summary', format('a test of channel %s by role %s', test_channel.name, session_user)));
BEGIN
	SELECT x.* INTO c FROM retry.channel x WHERE x.group_name = test_channel.group_name AND x.name = test_channel.name;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'channel "%/%" does not exist', test_channel.group_name, test_channel.name
			USING ERRCODE = 'undefined_object', HINT = 'Channels are rows of retry.channel, which members of the group''s owner see.';
	END IF;
	RETURN retry.enqueue((SELECT s.group_name || '/' || s.name FROM retry.scene s WHERE s.id = c.scene_id), max_attempts => 1,
		payload => retry.channel_body(c.kind, c.template, retry.alarm_message(test_channel.group_name, now(), alarm)));
END
$$;
COMMENT ON FUNCTION retry.test_channel(text, text) IS
'Sends a test message through a channel, tried once, and returns its task: retry.wait() says whether it was taken. For members of the group''s owner';

CREATE VIEW retry.alarms WITH (security_barrier) AS
SELECT
	a.group_name, a.name AS rule, a.condition, a.scene, a.severity, s.since, s.subjects, s.details,
	s.told, s.told_at, a.channels, s.error
FROM retry.alarm_state s
JOIN retry.alarm_rule a ON a.id = s.rule_id
JOIN retry.scene_group g ON g.name = a.group_name
WHERE s.firing AND g.id IN (SELECT retry.my_groups());
COMMENT ON VIEW retry.alarms IS 'Alarms that are firing, of groups that the current role owns or was granted, those of the shared group default for its owner and for pg_monitor';
COMMENT ON COLUMN retry.alarms.group_name IS 'The group';
COMMENT ON COLUMN retry.alarms.rule IS 'The rule that says so';
COMMENT ON COLUMN retry.alarms.condition IS 'What it looks at';
COMMENT ON COLUMN retry.alarms.scene IS 'The scene that it watches; null: all of the group';
COMMENT ON COLUMN retry.alarms.severity IS 'info, warning, error, critical';
COMMENT ON COLUMN retry.alarms.since IS 'When it began';
COMMENT ON COLUMN retry.alarms.subjects IS 'The scenes, lanes, URLs, channels or checks that it is about';
COMMENT ON COLUMN retry.alarms.details IS 'The first twenty of them, with what is wrong';
COMMENT ON COLUMN retry.alarms.told IS 'True: a message has said so';
COMMENT ON COLUMN retry.alarms.told_at IS 'When the last message about it was made; null: none yet';
COMMENT ON COLUMN retry.alarms.channels IS 'Who is told';
COMMENT ON COLUMN retry.alarms.error IS 'Why that message could not be made; null: it could';

/*
 * One screen for \watch 1: text, since what is worth a line differs from moment
 * to moment.
 */
CREATE FUNCTION retry.brief(span interval) RETURNS text
LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
	SELECT CASE
		WHEN x.s < 0.9995 THEN round(x.s * 1000) || 'ms'
		WHEN x.s < 59.95 THEN round(x.s, 1) || 's'
		WHEN x.s < 3570 THEN round(x.s / 60) || 'm'
		WHEN x.s < 86220 THEN round(x.s / 3600, 1) || 'h'
		ELSE round(x.s / 86400, 1) || 'd'
	END
	FROM (SELECT extract(epoch FROM span)) AS x (s)
$$;
COMMENT ON FUNCTION retry.brief(interval) IS 'A span of time in few letters, for people: 12ms, 3.5s, 7m, 1.2h, 3.0d';

CREATE FUNCTION retry.top_lines(OUT line text) RETURNS SETOF text
LANGUAGE plpgsql VOLATILE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	layout	CONSTANT text := '%-40s %9s %7s %8s %8s %7s %7s %7s %6s %6s %6s %s';
	r		record;
	n		int := 0;
BEGIN
	FOR r IN
		SELECT count(*) AS lanes, coalesce(sum(l.in_flight), 0) AS in_flight, coalesce(sum(l.queued + l.due), 0) AS due,
			count(*) FILTER (WHERE l.state IN ('breaker', 'half-open', 'blocked', 'targets', 'disabled', 'paused')) AS shut
		FROM retry.lanes l
	LOOP
		line := format('retry  %s  %s  %s lanes, %s shut, %s requests under way, about %s due',
			current_database(), to_char(clock_timestamp(), 'YYYY-MM-DD HH24:MI:SS'), r.lanes, r.shut, r.in_flight, r.due);
		RETURN NEXT;
	END LOOP;
	FOR r IN SELECT h.status, h.check_name, h.detail FROM retry.health() h WHERE h.status <> 'ok'
	LOOP
		line := format('%s  %s: %s', upper(r.status), r.check_name, left(r.detail, 120));
		RETURN NEXT;
	END LOOP;

	line := '';
	RETURN NEXT;
	line := format(layout, 'scene', 'pending', 'running', 'retrying', 'dead', 'in/s', 'out/s', 'fail/s', 'p50', 'p95', 'p99', 'behind');
	RETURN NEXT;
	FOR r IN
		SELECT 'all ' || count(*) AS scene, 'active' AS state, sum(o.pending) AS pending, sum(o.running) AS running,
			sum(o.retrying) AS retrying, sum(o.dead) AS dead, sum(o.enqueued_rate) AS enqueued_rate,
			sum(o.attempt_rate) AS attempt_rate, sum(o.failed_rate) AS failed_rate, NULL::interval AS p50,
			NULL::interval AS p95, NULL::interval AS p99, min(o.oldest_due) AS oldest_due
		FROM retry.overview o
		UNION ALL
		(SELECT o.scene, o.state, o.pending, o.running, o.retrying, o.dead, o.enqueued_rate, o.attempt_rate, o.failed_rate,
			o.p50, o.p95, o.p99, o.oldest_due
		FROM retry.overview o
		WHERE o.pending + o.running + o.retrying + o.dead > 0 OR o.enqueued_rate + o.attempt_rate > 0 OR o.state <> 'active'
		ORDER BY o.enqueued_rate + o.attempt_rate DESC, o.oldest_due, o.pending + o.retrying DESC, o.scene
		LIMIT 15)
	LOOP
		line := format(layout, left(r.scene || CASE WHEN r.state <> 'active' THEN format(' (%s)', r.state) ELSE '' END, 40),
			r.pending, r.running, r.retrying, r.dead, round(r.enqueued_rate::numeric, 1), round(r.attempt_rate::numeric, 1),
			round(r.failed_rate::numeric, 1), retry.brief(r.p50), retry.brief(r.p95), retry.brief(r.p99),
			retry.brief(clock_timestamp() - r.oldest_due));
		RETURN NEXT;
	END LOOP;

	FOR r IN
		SELECT l.group_name, l.lane, l.state, l.in_flight, l.queued + l.due AS due, l.oldest_due, l.blocked_until, l.last_error
		FROM retry.lanes l
		WHERE l.state NOT IN ('idle', 'sending', 'waiting')
		ORDER BY l.oldest_due, l.lane LIMIT 8
	LOOP
		IF n = 0 THEN
			line := '';
			RETURN NEXT;
			line := format('%-40s %-12s %7s %9s %7s %7s  %s', 'lane', 'state', 'running', 'due', 'behind', 'until', 'last error');
			RETURN NEXT;
		END IF;
		n := n + 1;
		line := format('%-40s %-12s %7s %9s %7s %7s  %s', left(r.lane, 40), r.state, r.in_flight, r.due,
			retry.brief(clock_timestamp() - r.oldest_due), retry.brief(greatest(r.blocked_until - clock_timestamp(), '0')),
			left(r.last_error, 60));
		RETURN NEXT;
	END LOOP;

	n := 0;
	FOR r IN
		SELECT e.at, e.kind, coalesce(e.lane, e.target, e.scene, e.group_name) AS what, e.detail
		FROM retry.events e
		WHERE e.at > clock_timestamp() - interval '1 hour'
		ORDER BY e.at DESC LIMIT 6
	LOOP
		IF n = 0 THEN
			line := '';
			RETURN NEXT;
		END IF;
		n := n + 1;
		line := format('%s  %s  %s  %s', to_char(r.at, 'HH24:MI:SS'), r.kind, left(r.what, 50), left(r.detail, 60));
		RETURN NEXT;
	END LOOP;
END
$$;
COMMENT ON FUNCTION retry.top_lines() IS 'The lines of the view retry.top';

CREATE VIEW retry.top WITH (security_barrier) AS
SELECT t.line AS top FROM retry.top_lines() t;
COMMENT ON VIEW retry.top IS 'One screen that says how it goes, for \watch 1 in psql: what is not well, scenes, lanes in trouble, the last events; of what the current role may see';
COMMENT ON COLUMN retry.top.top IS 'A line';

CREATE VIEW retry.targets AS
SELECT
	s.group_name || '/' || s.name AS scene, r.target, r.state, r.in_flight, r.failures, r.out_since,
	r.breaker, r.breaker_since, r.calls, r.failed, r.blocked_until, r.dispatcher
FROM retry.target_rows() r
JOIN retry.scene s ON s.id = r.scene_id;
COMMENT ON VIEW retry.targets IS 'Targets of scenes that dispatchers have called in the last ten minutes, as each of them knows them; of groups that the current role owns or was granted';
COMMENT ON COLUMN retry.targets.scene IS 'group/scene that names it';
COMMENT ON COLUMN retry.targets.target IS 'Its URL, cut after 255 bytes';
COMMENT ON COLUMN retry.targets.state IS 'well, or why it is not called as usual: disabled, breaker, blocked (as it asked itself), out (it failed, and is tried now and then), half-open';
COMMENT ON COLUMN retry.targets.in_flight IS 'Requests under way to it, in this scene';
COMMENT ON COLUMN retry.targets.failures IS 'Failures since it was last well';
COMMENT ON COLUMN retry.targets.out_since IS 'When it was taken out; null: it is in';
COMMENT ON COLUMN retry.targets.breaker IS 'closed, open, half-open';
COMMENT ON COLUMN retry.targets.breaker_since IS 'When it opened; null: it is closed';
COMMENT ON COLUMN retry.targets.calls IS 'Calls that its breaker counts; while it is not closed, those that opened it';
COMMENT ON COLUMN retry.targets.failed IS 'Of these, failed';
COMMENT ON COLUMN retry.targets.blocked_until IS 'When it may be called again; null: now';
COMMENT ON COLUMN retry.targets.dispatcher IS 'Number of the dispatcher that knows this';

CREATE VIEW retry.dispatchers AS
SELECT * FROM retry.dispatcher_rows();
COMMENT ON VIEW retry.dispatchers IS 'The workers that deliver this database''s tasks';
COMMENT ON COLUMN retry.dispatchers.number IS 'From 0';
COMMENT ON COLUMN retry.dispatchers.count IS 'How many share the lanes';
COMMENT ON COLUMN retry.dispatchers.pid IS 'Process';
COMMENT ON COLUMN retry.dispatchers.started_at IS 'When it started';
COMMENT ON COLUMN retry.dispatchers.in_flight IS 'Attempts under way';
COMMENT ON COLUMN retry.dispatchers.queued IS 'Entries waiting in its memory; the backlog stays on disk';
COMMENT ON COLUMN retry.dispatchers.lanes IS 'Lanes in its memory';
COMMENT ON COLUMN retry.dispatchers.attempts IS 'Attempts recorded since it started';
COMMENT ON COLUMN retry.dispatchers.turns IS 'Turns of its loop since it started';
COMMENT ON COLUMN retry.dispatchers.last_turn_at IS 'When it last turned';
COMMENT ON COLUMN retry.dispatchers.oldest_due IS 'Earliest due time of what it has not read yet; null: it has read all that is due';

CREATE VIEW retry.progress AS
SELECT
	p.pid, coalesce(r.rolname::text, p.role::text) AS role, p.operation, g.name AS group_name, s.group_name || '/' || s.name AS scene,
	p.filter, p.phase, p.looked_at, p.total, p.estimated, p.done, p.started_at
FROM retry.progress_rows() p
LEFT JOIN pg_catalog.pg_roles r ON r.oid = p.role
LEFT JOIN retry.scene_group g ON g.id = p.group_id
LEFT JOIN retry.scene s ON s.id = p.scene_id;
COMMENT ON VIEW retry.progress IS 'Long operations while they go on: of groups that the current role owns or was granted, and its own; all for members of pg_monitor';
COMMENT ON COLUMN retry.progress.pid IS 'Process; pg_cancel_backend() ends what it does, and undoes it but for upkeep';
COMMENT ON COLUMN retry.progress.role IS 'Who asked for it';
COMMENT ON COLUMN retry.progress.operation IS 'The function; resumption: of a scene or group with resume_over; upkeep: what is old and finished goes';
COMMENT ON COLUMN retry.progress.group_name IS 'The group that it was asked for; null: several';
COMMENT ON COLUMN retry.progress.scene IS 'group/scene, where it is about one scene';
COMMENT ON COLUMN retry.progress.filter IS 'Arguments of the function that are not null, cut after some hundred bytes';
COMMENT ON COLUMN retry.progress.phase IS 'What it does now';
COMMENT ON COLUMN retry.progress.looked_at IS 'Tasks or rows that it has looked at in this phase';
COMMENT ON COLUMN retry.progress.total IS 'Of so many; null: not known';
COMMENT ON COLUMN retry.progress.estimated IS 'The total is an estimate, and may be passed';
COMMENT ON COLUMN retry.progress.done IS 'For so many it was done: tasks replayed, cancelled, to be run or amended; rows and tasks removed';
COMMENT ON COLUMN retry.progress.started_at IS 'When it began';

/*
 * 8. Rights
 *
 * Everybody may call the functions that check rights themselves and read the
 * views that show a role its own; all else is for the extension's owner.
 */

-- what ALTER DEFAULT PRIVILEGES may have given to everybody
REVOKE ALL ON ALL TABLES IN SCHEMA retry FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA retry FROM PUBLIC;
GRANT USAGE ON SCHEMA retry TO PUBLIC;
GRANT SELECT ON retry.tasks, retry.tasks_by_leaf, retry.attempts, retry.running, retry.dead_letters TO PUBLIC;
GRANT SELECT ON retry.schedules, retry.secrets, retry.disabled_urls, retry.events, retry.lanes, retry.targets TO PUBLIC;
GRANT SELECT ON retry.overview, retry.stats, retry.top, retry.limits TO PUBLIC;
GRANT SELECT ON retry.audit, retry.progress, retry.alarms TO PUBLIC;
GRANT SELECT ON retry.transactions, retry.branches TO PUBLIC;
GRANT SELECT ON retry.dispatchers TO pg_monitor;
REVOKE EXECUTE ON FUNCTION retry.purge(timestamptz) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION retry.adopt() FROM PUBLIC;
REVOKE EXECUTE ON PROCEDURE retry.maintain() FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION retry.check_workers() FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION retry.check_secret(text, text, boolean) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION retry.scene_in_use(int) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION retry.look_at_alarms(timestamptz) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION retry.alarm_subjects(timestamptz) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION retry.dispatcher_rows() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION retry.dispatcher_rows() TO pg_monitor;

-- no trigger function is of use on a table of somebody's own
DO $triggers$
DECLARE
	f	regprocedure;
BEGIN
	FOR f IN
		SELECT p.oid FROM pg_catalog.pg_proc p
		WHERE p.pronamespace = 'retry'::regnamespace AND p.prorettype = 'trigger'::regtype
	LOOP
		EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', f);
	END LOOP;
END
$triggers$;

/*
 * Members of a group's owner look after its configuration.  PUBLIC has its
 * privileges column by column: nobody can LOCK by these, and so hold up what
 * others do, which a privilege on a whole table would allow.  Hence there are
 * functions to delete.  Who was given a privilege on a whole table has it for all
 * rows.  What is not in the lists is for the extension's owner: names and
 * owners of groups, and what weighs groups against each other.
 */
ALTER TABLE retry.scene_group ENABLE ROW LEVEL SECURITY;
ALTER TABLE retry.scene ENABLE ROW LEVEL SECURITY;
ALTER TABLE retry.lane_override ENABLE ROW LEVEL SECURITY;
ALTER TABLE retry.channel ENABLE ROW LEVEL SECURITY;
ALTER TABLE retry.alarm_rule ENABLE ROW LEVEL SECURITY;

DO $policies$
DECLARE
	t	text;
	c	text;
	own	text;
BEGIN
	FOREACH t IN ARRAY ARRAY['scene_group', 'scene', 'lane_override', 'channel', 'alarm_rule'] LOOP
		own := CASE WHEN t = 'scene_group' THEN 'pg_catalog.pg_has_role(owner, ''USAGE'')'
			ELSE 'group_name IN (SELECT g.name FROM retry.scene_group g WHERE pg_catalog.pg_has_role(g.owner, ''USAGE''))' END;
		FOREACH c IN ARRAY ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE'] LOOP
			EXECUTE format('CREATE POLICY %1$I ON retry.%2$I FOR %3$s %4$s (pg_catalog.has_table_privilege(''retry.%2$I''::regclass, %3$L) OR %5$s)',
				lower(c), t, c, CASE c WHEN 'INSERT' THEN 'WITH CHECK' ELSE 'USING' END, own);
			EXECUTE format('COMMENT ON POLICY %I ON retry.%I IS %L', lower(c), t,
				'members of the owner, and who may do it to the whole table');
		END LOOP;
		-- each column by its name, so that no privilege is on the whole
		EXECUTE (SELECT format('GRANT SELECT (%s) ON retry.%I TO PUBLIC', string_agg(quote_ident(a.attname), ', '), t)
			FROM pg_catalog.pg_attribute a
			WHERE a.attrelid = format('retry.%I', t)::regclass AND a.attnum > 0 AND NOT a.attisdropped);
	END LOOP;

	FOREACH c IN ARRAY ARRAY['INSERT', 'UPDATE'] LOOP
		EXECUTE format('GRANT %s (
				group_name, name, url, targets, route, method, headers, timeout, connect_timeout, backoff, max_attempts,
				expires_after, time_budget, success_status, stop_status, stop_errors, success_when, pending_when, stop_when,
				pending_interval, pending_limit, on_success, on_dead, notify, check_target, check_after, check_every, check_limit,
				undecided, generate_key, key_window, lane_by, rate, max_in_flight,
				ordered, dead_head, adaptive, hedge, breaker_ratio, breaker_calls, breaker_window, breaker_open, retry_share,
				retry_floor, secret, secret_use, tls_verify, tls_min_version, tls_ca, tls_pin, tls_cert, paused, resume_over,
				archived, description)
			ON retry.scene TO PUBLIC', c);
		EXECUTE format('GRANT %s (group_name, lane, max_in_flight, rate, ordered, paused, disabled, reset_at, description)
			ON retry.lane_override TO PUBLIC', c);
		EXECUTE format('GRANT %s (group_name, name, kind, url, secret, template, mail_from, mail_to, mail_user, description) ON retry.channel TO PUBLIC', c);
		EXECUTE format('GRANT %s (
				group_name, name, scene, condition, threshold, min_attempts, period, age, channels, severity, collect, quiet,
				remind_after, tell_recovery, active, description)
			ON retry.alarm_rule TO PUBLIC', c);
	END LOOP;
END
$policies$;
GRANT UPDATE (paused, resume_over, description) ON retry.scene_group TO PUBLIC;

/*
 * Rows of these say as whom a function is called, and who this server is on
 * another.  So nobody but the extension's owner writes them, not even who may
 * write all data; who may read a table reads it.
 */
DO $closed$
DECLARE
	t	regclass;
BEGIN
	FOR t IN
		SELECT c.oid FROM pg_catalog.pg_class c
		WHERE c.relnamespace = 'retry'::regnamespace AND c.relkind IN ('r', 'p')
			AND c.relname ~ '^(server|schedule_definition|dead_letter|global_message|global_operation|(task|signal)(_[0-9]+)?)$'
	LOOP
		EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', t);
		EXECUTE format('CREATE POLICY closed ON %s FOR SELECT USING (true)', t);
		EXECUTE format('COMMENT ON POLICY closed ON %s IS %L', t, 'the owner of the extension writes, alone');
	END LOOP;
END
$closed$;

/*
 * A table that was never analyzed is taken to have ten pages; a hundred such
 * leaves make the views look so costly that every query would be compiled.
 */
ANALYZE retry.task, retry.attempt, retry.signal, retry.dead_letter, retry.replayed,
	retry.scene, retry.scene_group, retry.group_member, retry.disabled_url;

/* The launcher looks at this database when this commits. */
SELECT retry.check_workers();
