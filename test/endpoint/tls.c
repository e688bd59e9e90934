/*
 * tls.c
 *		TLS under a connection, with OpenSSL.
 *
 * Only what a sender's tests need: one certificate, HTTP/1.1 by ALPN, and
 * reads and writes that look like recv and send to conn.c. The handshake
 * happens inside the first read.
 */
#include "endpoint.h"

#ifdef ENDPOINT_TLS

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <string.h>

static SSL_CTX *ctx;

static int
choose_http11(SSL *ssl, const unsigned char **out, unsigned char *outlen,
			  const unsigned char *in, unsigned int inlen, void *arg)
{
	static const unsigned char ours[] = "\x08http/1.1";

	if (SSL_select_next_proto((unsigned char **) out, outlen, ours, sizeof(ours) - 1, in, inlen)
		!= OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_NOACK;
	return SSL_TLSEXT_ERR_OK;
}

bool
tls_init(const char *cert, const char *key, const char *clients)
{
	ctx = SSL_CTX_new(TLS_server_method());
	if (ctx == NULL ||
		SSL_CTX_use_certificate_chain_file(ctx, cert) != 1 ||
		SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) != 1 ||
		(clients != NULL && SSL_CTX_load_verify_locations(ctx, clients, NULL) != 1))
	{
		ERR_print_errors_fp(stderr);
		return false;
	}
	SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
					 SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_alpn_select_cb(ctx, choose_http11, NULL);
	if (clients != NULL)
	{
		/* asked for, and looked at when there is one; sessions are of no use otherwise */
		SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
		SSL_CTX_set_session_id_context(ctx, (const unsigned char *) "retry", 5);
	}
	return true;
}

void
tls_attach(Conn *c)
{
	SSL		   *ssl = SSL_new(ctx);

	if (ssl == NULL)
		return;
	SSL_set_fd(ssl, c->fd);
	SSL_set_accept_state(ssl);
	c->ssl = ssl;
}

void
tls_detach(Conn *c, bool polite)
{
	ERR_clear_error();
	if (polite && SSL_is_init_finished(c->ssl))
		SSL_shutdown(c->ssl);
	SSL_free(c->ssl);
	c->ssl = NULL;
}

bool
tls_pending(Conn *c)
{
	return SSL_pending(c->ssl) > 0;
}

/* OpenSSL's verdict as recv's and send's: -1 with errno, 0 at the end. */
static ssize_t
as_errno(Conn *c, int n)
{
	int			why;

	if (n > 0)
		return n;
	why = SSL_get_error(c->ssl, n);
	if (why == SSL_ERROR_ZERO_RETURN)
		return 0;
	errno = why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? EAGAIN : ECONNRESET;
	return -1;
}

ssize_t
tls_read(Conn *c, void *p, size_t len)
{
	ERR_clear_error();
	return as_errno(c, SSL_read(c->ssl, p, (int) len));
}

ssize_t
tls_write(Conn *c, const void *p, size_t len)
{
	ssize_t		n;

	ERR_clear_error();
	n = as_errno(c, SSL_write(c->ssl, p, (int) (len < 65536 ? len : 65536)));
	if (n == 0)
	{
		errno = ECONNRESET;
		return -1;
	}
	return n;
}

#endif							/* ENDPOINT_TLS */
