/*
 * endpoint.h
 *		Settings of the endpoint and the seam between connections and behaviours.
 *
 * Settings are written by main() and, for the mode, by POST /_mode; everybody
 * else reads them.
 */
#ifndef ENDPOINT_H
#define ENDPOINT_H

#include "conn.h"
#include "http.h"

typedef enum ModeKind
{
	MODE_UP,
	MODE_DOWN,					/* reset every connection that sends a request */
	MODE_HANG,
	MODE_SLOW,					/* arg = ms */
	MODE_STATUS,				/* arg = status */
	MODE_AS						/* /ok answers as mode_path does */
} ModeKind;

typedef struct Settings
{
	const char *bind;
	int			port;
	const char *port_file;
	const char *ledger;
	const char *tls_cert;
	const char *tls_key;
	const char *tls_clients;	/* whose client certificates are asked for, or NULL */
	bool		count_only;
	int64_t		delay_us;
	double		fail_percent;
	uint64_t	random;			/* state of the generator */
	ModeKind	mode;
	int			mode_arg;
	char		mode_path[64];
	int			capacity;		/* workers of /capacity; 0: as its path says */
	volatile bool quit;
} Settings;

extern Settings settings;

/* Decide how to answer: appends to c->out and sets c's plan. */
extern void behave(Conn *c, const Request *req);

/* Does this path answer (or stop) before the body has come? */
extern bool behave_early(const Request *req);

/* The name of behaviour number i, NULL after the last. */
extern const char *behave_name(int i);

/* Paths under /_: statistics, ledger, mode, reset, quit. */
extern void control(Conn *c, const Request *req);

/*
 * Append one complete answer. `headers` are further header lines, each ended
 * by CRLF, or NULL. Sets the status and, if the client asked, the close.
 */
extern void answer(Conn *c, const Request *req, int status, const char *type,
				   const char *headers, const void *body, size_t len);
extern void answer_json(Conn *c, const Request *req, int status, const char *json);

#ifdef ENDPOINT_TLS
#include <sys/types.h>

/* tls.c; tls_read and tls_write answer as recv and send do. */
extern bool tls_init(const char *cert, const char *key, const char *clients);
extern void tls_attach(Conn *c);
extern void tls_detach(Conn *c, bool polite);
extern bool tls_pending(Conn *c);
extern ssize_t tls_read(Conn *c, void *p, size_t len);
extern ssize_t tls_write(Conn *c, const void *p, size_t len);
#endif

#endif							/* ENDPOINT_H */
