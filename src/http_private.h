/*
 * http_private.h
 *	  What the files of the HTTP client share: http.c owns the transfers and
 *	  drives them, http_transfer.c prepares one and receives its answer in
 *	  curl's callbacks, http_tls.c sets up TLS for it, http_outcome.c turns
 *	  curl's verdict into ours, and http_mail.c does all of it for mails where
 *	  they differ.
 *
 * Included by those only.  Nothing here may allocate with palloc or
 * raise an error: most of it runs inside curl's callbacks.
 */
#ifndef RETRY_HTTP_PRIVATE_H
#define RETRY_HTTP_PRIVATE_H

#include <curl/curl.h>

#include "evloop.h"
#include "http.h"
#include "mail_talk.h"
#include "url.h"

#if LIBCURL_VERSION_NUM < 0x075800
#error "libcurl 7.88 or newer is required"
#endif

#define RETRY_HTTP_DEFAULT_TIMEOUT_MS	15000
#define RETRY_HTTP_DEFAULT_CONNECT_MS	5000
#define RETRY_HTTP_MAX_HEADER_BYTES		(256 * 1024)

/*
 * curl 7.88 walks all connections of a multi handle when a transfer ends, and
 * those of the origin when one starts: a third of the cost at 1000 in flight.
 * So the transfers are spread over several multi handles (shards) of about
 * this many each.  Each origin has a shard where it begins, and goes to the next
 * one with room when that is full: so under light load the same connections
 * are used again and again, and those of other origins stay.
 */
#define RETRY_HTTP_SHARD_SIZE	32

typedef struct RetryHttpShard
{
	CURLM	   *multi;			/* NULL: not used yet */
	int			running;
} RetryHttpShard;

typedef enum RetryTransferState
{
	RETRY_TRANSFER_FREE,
	RETRY_TRANSFER_QUEUED,		/* prepared, not yet given to curl */
	RETRY_TRANSFER_RUNNING,		/* in the multi handle */
	RETRY_TRANSFER_DONE			/* result waits to be fetched or released */
} RetryTransferState;

/* Settings of TLS that transfers were set up with; see http_tls.c. */
typedef struct RetryTlsKept RetryTlsKept;

typedef struct RetryTransfer
{
	RetryHttpResult result;		/* must be first: release gets it back */
	struct RetryTransfer *next;
	struct RetryTransfer *prev;
	RetryTransferState state;
	RetryHttp  *http;
	RetryHttpShard *shard;		/* while running */
	CURL	   *easy;
	uint64		settings;		/* generation its easy handle was set up for */
	RetryTlsKept *tls;			/* and what with; NULL: the usual */

	/* the request; all of it lies in arena */
	char	   *arena;
	size_t		arena_size;
	int32		timeout_ms;
	int32		connect_timeout_ms;
	char		method[33];		/* as last given to the easy handle */
	int			body_mode;		/* likewise; see http_transfer.c */
	int			header_count;	/* lines at the beginning of arena */
	const char *body;
	size_t		body_len;
	const char *url;			/* stays for the next request to look at */
	const char *parameters;		/* added to it; NULL: none */
	uint32		origin_hash;	/* of that */

	/* the answer, as far as it came */
	char	   *response;
	size_t		response_size;	/* allocated, less one for the final NUL */
	size_t		response_limit; /* bytes to keep */
	uint64		hard_limit;		/* bytes to read */
	int64		announced;		/* Content-Length, -1: none */
	uint64		header_bytes;
	int			status;			/* of the status line last seen */
	bool		answering;		/* some byte of the answer came */
	bool		headers_complete;
	bool		connected;		/* curl was about to send the request */
	bool		oversize;		/* we stopped reading at hard_limit */
	bool		headers_too_long;
	bool		two_lengths;	/* its headers give different lengths */
	bool		out_of_memory;	/* in a callback */
	int			open_errno;		/* of a socket that could not be made */
	int			sockets_opened;
	curl_socket_t opened;		/* the last of them */
	int			sockets_blocked;
	char		blocked_address[46];
	char		blocked_rule[RETRY_NETGUARD_RULE_TEXT];
	char		curl_error[CURL_ERROR_SIZE];

	/* of a mail; see http_mail.c */
	RetryMailTalk *talk;		/* NULL: it is none */
	size_t		script_len;		/* of body, the rest is the mail */
	int64		started_us;		/* monotonic */
	curl_socket_t socket;		/* while talking */
	bool		talking;		/* libcurl has let go of the socket */
	bool		talk_over;
	CURLcode	talk_code;		/* why, where the talk itself does not say */
} RetryTransfer;

typedef struct RetryTransferList
{
	RetryTransfer *head;
	RetryTransfer *tail;
	int			count;
} RetryTransferList;

struct RetryHttp
{
	RetryHttpShard shards[RETRY_EVLOOP_MAX_MULTIS];
	int			shard_count;	/* of those that may be used */
	int			shard_size;		/* transfers before the next one is used */
	RetryEvloop *loop;
	uint64		settings;		/* generation, counts configure calls */
	int			max_in_flight;
	int			max_connections;	/* 0: by max_in_flight */
	int			max_response_bytes;
	int64		hard_response_limit;
	char	   *user_agent;
	char	   *proxy;			/* "" for none */
	char	   *ca_bundle;		/* "" for the system's */
	RetryNetguard netguard;
	RetryTlsKept *tls;			/* all that transfers hold */

	int			in_flight;		/* queued, running, done, not yet released */
	int			talking;		/* transfers of mail that are */
	RetryTransferList queued;
	RetryTransferList running;
	RetryTransferList done;		/* not yet fetched */
	RetryTransferList fetched;	/* fetched, not yet released */
	RetryTransferList idle;		/* for reuse */
};

/* http_transfer.c */

/*
 * Makes the transfer ready for curl_multi_add_handle: copies the request, sets
 * the easy handle.  False when memory is short.  A request that cannot be sent
 * is true with result.error set.
 */
extern bool retry_transfer_prepare(RetryTransfer *transfer, const RetryHttpRequest *request);

/*
 * The same for a second transfer of the request that "source", which is under
 * way, was made ready for; see retry_http_repeat.
 */
extern bool retry_transfer_repeat(RetryTransfer *transfer, const RetryTransfer *source,
								  const char *url, int32 timeout_ms, void *tag);

/* http_tls.c */

/* Is this what was kept?  Either may be NULL, the usual. */
extern bool retry_tls_is(const RetryTlsKept *kept, const RetryTls *tls);

/*
 * Copies of these settings, with one holder more, who has to let go of them; NULL
 * when memory is short.  Letting go of NULL is allowed.
 */
extern RetryTlsKept *retry_tls_keep(RetryHttp *http, const RetryTls *tls);
extern void retry_tls_let_go(RetryHttp *http, RetryTlsKept *kept);

/* NULL of NULL; valid while it is held. */
extern const RetryTls *retry_tls_of(const RetryTlsKept *kept);

/*
 * Tells an easy handle that was just reset; NULL: the usual.  The handle points
 * into the settings until it is reset again: let go of them after that.
 */
extern CURLcode retry_tls_apply(const RetryHttp *http, CURL *easy, const RetryTlsKept *kept);

/* Fails the transfer if it is TLS that failed; else false. */
extern bool retry_tls_conclude(RetryTransfer *transfer, CURLcode code, const char *detail);

/* http_mail.c */

/* Can this mail be sent?  False, with the transfer failed, when not. */
extern bool retry_mail_check(RetryTransfer *transfer, const RetryHttpRequest *request, RetryUrl *url);

/*
 * Sets an easy handle that has just been reset, and its settings applied, for the
 * mail in the transfer's body.  False when memory is short.
 */
extern bool retry_mail_apply(RetryTransfer *transfer, const RetryHttpRequest *request, const RetryUrl *url);

/* libcurl has connected and signed in: talks on.  False when that cannot be. */
extern bool retry_mail_begin(RetryTransfer *transfer);

/* When it has taken too long, as retry_evloop_now_us() has it. */
extern int64 retry_mail_deadline_us(const RetryTransfer *transfer);

/*
 * The result of a mail, from libcurl's verdict and the talk; false when only
 * libcurl's words are left to say what happened.
 */
extern bool retry_mail_conclude(RetryTransfer *transfer, CURLcode code);

/* Lets go of what only a mail needs, when its transfer is out of curl. */
extern void retry_mail_forget(RetryTransfer *transfer);

/* http_outcome.c */

/*
 * Fills in transfer->result from curl's verdict, while the easy handle still
 * knows the details.
 */
extern void retry_transfer_conclude(RetryTransfer *transfer, CURLcode code);

/* Records a failure that curl did not report itself. */
extern void retry_transfer_fail(RetryTransfer *transfer, RetryHttpError error,
								const char *format,...) pg_attribute_printf(3, 4);

#endif							/* RETRY_HTTP_PRIVATE_H */
