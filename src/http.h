/*
 * http.h
 *	  The HTTP client of a dispatcher: many concurrent transfers on one curl
 *	  multi handle, driven without blocking by the dispatcher's own loop.
 *
 * The client knows nothing of tasks, lanes or SQL.  It never raises an error,
 * never uses palloc and never waits.  One client belongs to one process and
 * one thread.  All memory is malloc'd and recycled, so that nothing depends on
 * a memory context, on a transaction, or on a longjmp not happening.
 *
 * One turn of the caller's loop:
 *
 *		while (something is due && retry_http_start(http, &request, ...))
 *			;
 *		retry_http_run(http);
 *		while ((result = retry_http_next(http)) != NULL)
 *		{
 *			... use *result ...
 *			retry_http_release(http, result);
 *		}
 *		wait for retry_http_fd(http) to be readable,
 *			at most retry_http_timeout_ms(http)
 *
 * retry_http_start only prepares: the transfer leaves with the next
 * retry_http_run, which blocks all signals once for the whole batch (resolver
 * threads inherit the mask, and no PostgreSQL handler may run on one).
 */
#ifndef RETRY_HTTP_H
#define RETRY_HTTP_H

#include "httpdate.h"
#include "netguard.h"
#include "ratelimit_header.h"

typedef struct RetryHttp RetryHttp;

/*
 * Settings.  All strings are copied; netguard is copied whole.  Zero means the
 * default named here.
 */
typedef struct RetryHttpOptions
{
	int			max_in_flight;	/* transfers at once; default 256 */
	int			max_connections;	/* kept open, in use or not; default as
									 * many as transfers, but at least 64 */
	int			max_response_bytes; /* body bytes kept; default 65536, < 0:
									 * none */
	int64		hard_response_limit;	/* body bytes read before the
										 * connection is dropped; default 16
										 * MB */
	const char *user_agent;		/* NULL: "pg-retry/1.0" */
	const char *proxy;			/* NULL or "": none, also none from the
								 * environment */
	const char *ca_bundle;		/* NULL or "": the system's */
	const RetryNetguard *netguard;	/* NULL: nothing is blocked */
} RetryHttpOptions;

/*
 * What one request wants of TLS, where that differs from the usual: versions
 * from 1.2 on, the server's certificate verified with the authorities of the
 * options, none shown.  Requests that differ in any of this share no connection.
 */
typedef struct RetryTls
{
	bool		unverified;		/* whoever answers is taken for the server */
	bool		from_1_3;		/* not 1.2 */
	const char *authorities;	/* PEM, instead of the usual; NULL: the usual */
	const char *identity;		/* PEM, the client's certificate, those of its
								 * issuers, and its key; NULL: none */
	const char *pins;			/* "sha256//..." of the server's public key,
								 * several with ; between; NULL: any key */
} RetryTls;

/*
 * A mail, which goes to the server that the URL names (see retry_url_check_mail);
 * body is what retry_mail_write has written, method and headers mean nothing.
 */
typedef struct RetryHttpMail
{
	const char *user;			/* NULL: it does not sign in */
	const char *password;
	size_t		script_len;		/* so much of the body is the envelope */
} RetryHttpMail;

/*
 * One request.  Everything is copied by retry_http_start.
 */
typedef struct RetryHttpRequest
{
	void	   *tag;			/* the caller's name for it, comes back in the
								 * result */
	const char *url;			/* absolute http or https; of a mail see there */
	const char *parameters;		/* sent as more of the URL's query, and not
								 * shown in the result; NULL: none */
	const char *method;			/* NULL: POST with a body, else GET */
	const char *const *headers; /* complete lines, "Name: value", no CR LF */
	int			header_count;
	const char *body;
	size_t		body_len;
	bool		has_body;		/* false: no body, whatever body says */
	int32		timeout_ms;		/* whole exchange; <= 0: 15 s */
	int32		connect_timeout_ms; /* name, TCP and TLS; <= 0: 5 s */
	const RetryTls *tls;		/* NULL: the usual */
	const RetryHttpMail *mail;	/* NULL: it is none */
} RetryHttpRequest;

/*
 * How an exchange failed.  Names and texts: retry_http_error_name().
 */
typedef enum RetryHttpError
{
	RETRY_HTTP_OK = 0,			/* a complete answer (maybe cut by our limit) */
	RETRY_HTTP_BAD_REQUEST,		/* URL, method or header cannot be sent */
	RETRY_HTTP_BLOCKED,			/* address in a blocked network */
	RETRY_HTTP_DNS,				/* the name did not resolve */
	RETRY_HTTP_CONNECT,			/* refused, unreachable */
	RETRY_HTTP_CONNECT_TIMEOUT, /* no connection in connect_timeout_ms */
	RETRY_HTTP_TLS,				/* handshake or certificate */
	RETRY_HTTP_TIMEOUT,			/* connected, no complete answer in time */
	RETRY_HTTP_CLOSED,			/* reset or closed: no answer, or a cut one */
	RETRY_HTTP_MALFORMED,		/* what came is not HTTP */
	RETRY_HTTP_INTERNAL,		/* out of memory, out of descriptors, a bug */
	RETRY_HTTP_DEFERRED,		/* a mail server says 4xx: later perhaps */
	RETRY_HTTP_REFUSED			/* or 5xx: never */
} RetryHttpError;

#define RETRY_HTTP_ERROR_TEXT	256

/*
 * One finished exchange.
 *
 * http_status is set as soon as a complete status line and header block came,
 * also when the body then broke: error says how, and the caller decides which
 * of the two counts.  A body longer than max_response_bytes is no error:
 * body_truncated is set and the first bytes are kept.
 *
 * All times are microseconds of the monotonic clock; 0 when the phase did not
 * happen (on a reused connection there is no dns, connect or tls phase).
 */
typedef struct RetryHttpResult
{
	void	   *tag;
	RetryHttpError error;
	int			http_status;	/* 0: no complete header block came, or it is
								 * a mail */
	bool		delivered;		/* a mail server has taken the mail; body is
								 * what it said, also when it did not */
	char		error_text[RETRY_HTTP_ERROR_TEXT];	/* "" when error is OK;
													 * from DNS to MALFORMED
													 * it begins with the name
													 * of the error and a
													 * colon */

	RetryRetryAfter retry_after;	/* .kind is RETRY_AFTER_NONE when absent */
	RetryRateLimit rate_limit;	/* what other headers say of limits */
	char		retry_control[16];	/* value of Retry-Control, trimmed, lower
									 * case, cut at 15; "" when absent */
	char		content_type[128];	/* "" when absent; control bytes become ? */

	const char *url;			/* as it was sent; "" when it could not be */
	const char *body;			/* raw bytes, never NULL; a NUL follows */
	size_t		body_len;
	bool		body_truncated; /* more came than was kept */
	uint64		bytes_received; /* body bytes read, kept or not */

	char		remote_ip[46];	/* "" when never connected; a proxy's when one
								 * is configured */
	int			remote_port;
	bool		reused;			/* on a kept-alive connection */
	int64		dns_us;			/* name lookup */
	int64		connect_us;		/* TCP connect */
	int64		tls_us;			/* TLS handshake */
	int64		first_byte_us;	/* from start to first byte of the answer */
	int64		total_us;		/* from start to end */
} RetryHttpResult;

/*
 * Creates a client; the first call in a process also initialises libcurl, so
 * call it in the worker, never in _PG_init.  NULL on failure, with the reason
 * in errbuf.
 */
extern RetryHttp *retry_http_create(const RetryHttpOptions *options,
									char *errbuf, size_t errbuf_size);

/*
 * Changes the settings for transfers started from now on.  False when memory
 * is short, with the reason in errbuf and the old settings in force.
 */
extern bool retry_http_configure(RetryHttp *http, const RetryHttpOptions *options,
								 char *errbuf, size_t errbuf_size);

/*
 * Takes one request; it leaves with the next retry_http_run.  False, with the
 * reason in errbuf, when it was not taken: max_in_flight is reached or memory
 * is short; try again later.  Once it is taken there is exactly one result (or
 * a successful cancel): a malformed URL too comes back as a result.
 */
extern bool retry_http_start(RetryHttp *http, const RetryHttpRequest *request,
							 char *errbuf, size_t errbuf_size);

/*
 * Takes the request of the transfer with this tag, which is under way, a second
 * time: the same bytes, to "url" if that is not NULL, with a time limit of its
 * own in milliseconds (at least 1) and "second_tag" for a name.  Both go on from
 * here on as any others do.  False, with the reason in errbuf, as of
 * retry_http_start, and when there is no such transfer.
 */
extern bool retry_http_repeat(RetryHttp *http, void *tag, const char *url, int32 timeout_ms,
							  void *second_tag, char *errbuf, size_t errbuf_size);

/*
 * The descriptor to wait on for readability.  It stays the same for the life
 * of the client.
 */
extern int	retry_http_fd(RetryHttp *http);

/*
 * Milliseconds after which retry_http_run must be called even if the
 * descriptor is quiet; 0: now; -1: no such moment.
 */
extern long retry_http_timeout_ms(RetryHttp *http);

/*
 * Sends what was started, and handles every socket and timer that is ready.
 * Never waits.  Calling it too often is harmless.
 */
extern void retry_http_run(RetryHttp *http);

/*
 * The next finished exchange, or NULL.  The result and what it points to
 * belong to the client and stay valid until retry_http_release.
 */
extern const RetryHttpResult *retry_http_next(RetryHttp *http);
extern void retry_http_release(RetryHttp *http, const RetryHttpResult *result);

/*
 * Requests taken and not yet released, finished ones included: what counts
 * against max_in_flight.
 */
extern int	retry_http_in_flight(RetryHttp *http);

/*
 * Gives up the transfer with this tag, without a result; its connection is
 * closed.  False when there is none that is still unfinished.
 */
extern bool retry_http_cancel(RetryHttp *http, void *tag);

/*
 * Closes everything, results not yet released included.  NULL is allowed.
 */
extern void retry_http_destroy(RetryHttp *http);

/*
 * A short lower-case word for an error ("timeout", "blocked"), constant.
 */
extern const char *retry_http_error_name(RetryHttpError error);

/* Can this libcurl speak to mail servers? */
extern bool retry_http_sends_mail(void);

#endif							/* RETRY_HTTP_H */
