# A mail server for tests, of several ports: plain (no TLS, no passwords),
# starttls and tls (both with passwords), wronghost and untrusted (tls with another
# certificate).  What a recipient is called says what becomes of him: unknown
# is refused, full is put off, grey is put off once, drop loses his connection
# amidst the mail once, slow waits until the file "go" is there.
# usage: mail_server.py FOLDER USER PASSWORD CERT KEY WRONG_CERT WRONG_KEY OTHER_CERT OTHER_KEY
# Ports are told in FOLDER/ports, what arrived in FOLDER/ledger, a line each.
import asyncio, email, email.policy, json, os, ssl, sys

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

folder, user, password = sys.argv[1:4]
certificates = [sys.argv[i:i + 2] for i in (4, 6, 8)]
seen = set()


def first(what, key):
    news = (what, key) not in seen
    seen.add((what, key))
    return news


def authenticate(server, session, envelope, mechanism, data):
    good = isinstance(data, LoginPassword) and data.login.decode() == user and data.password.decode() == password
    return AuthResult(success=good, handled=False)


class Handler:
    def __init__(self, port):
        self.port = port

    async def handle_RCPT(self, server, session, envelope, address, options):
        name = address.split('@')[0]
        if name == 'unknown':
            return '550 5.1.1 no such user here'
        if name == 'full':
            return '452 4.2.2 mailbox full'
        if name == 'grey' and first('grey', address):
            return '451 4.7.1 greylisted, come back'
        envelope.rcpt_tos.append(address)
        return '250 2.1.5 ok'

    async def handle_DATA(self, server, session, envelope):
        raw = envelope.original_content
        mail = email.message_from_bytes(raw, policy=email.policy.default)
        if envelope.rcpt_tos[0].startswith('slow'):
            open(folder + '/slow', 'w').close()
            while not os.path.exists(folder + '/go'):
                await asyncio.sleep(0.02)
        with open(folder + '/ledger', 'a') as ledger:
            ledger.write(json.dumps({
                'port': self.port, 'user': user if session.authenticated else None,
                'sender': envelope.mail_from, 'recipients': envelope.rcpt_tos,
                'headers': {name: str(value) for name, value in mail.items()},
                'names': [a.display_name for a in mail['To'].addresses],
                'addresses': [a.addr_spec for a in mail['To'].addresses],
                'date': mail['Date'].datetime.timestamp(), 'count': len(mail.keys()),
                'defects': [str(d) for d in mail.defects] + [str(d) for v in mail.values() for d in v.defects],
                'text': mail.get_content().replace('\r\n', '\n'), 'ascii': raw.isascii(),
                'longest': max(len(line) for line in raw.split(b'\r\n'))}) + '\n')
        return '250 2.0.0 taken as number 42'


class Server(SMTP):
    async def smtp_DATA(self, argument):
        if self.envelope.rcpt_tos and self.envelope.rcpt_tos[0].startswith('drop') and first('drop', ''):
            await self.push('354 go on')
            await self._reader.readline()
            self.transport.abort()
            return
        await super().smtp_DATA(argument)


def context(pair):
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    made.load_cert_chain(*pair)
    return made


async def main():
    loop = asyncio.get_running_loop()
    signed_in = {'authenticator': authenticate, 'auth_required': True}
    kinds = {
        'plain': (None, {}),
        'starttls': (None, {**signed_in, 'tls_context': context(certificates[0]), 'require_starttls': True}),
        'tls': (context(certificates[0]), {**signed_in, 'auth_require_tls': False}),
        'wronghost': (context(certificates[1]), {}),
        'untrusted': (context(certificates[2]), {}),
    }
    ports = {}
    servers = []
    for name, (tls, options) in kinds.items():
        server = await loop.create_server(
            lambda name=name, options=options: Server(Handler(name), hostname='mail.test', **options),
            '127.0.0.1', 0, ssl=tls)
        servers.append(server)
        ports[name] = server.sockets[0].getsockname()[1]
    with open(folder + '/ports.new', 'w') as out:
        json.dump(ports, out)
    os.rename(folder + '/ports.new', folder + '/ports')
    await asyncio.gather(*(server.serve_forever() for server in servers))


asyncio.run(main())
