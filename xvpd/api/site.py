"""The API over HTTP: twisted.web's parser below, the table of routes above.

What `twisted.web` leaves open is closed here: a body has a limit and a length, a request has a deadline for all its bytes, a
close has an abort timer, and no access log line shows what was asked for, only which route it took.
"""

from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Final

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, HTTPFactory, Request, datetimeToString

from xvpd.api.auth import Caller, IAuthClient
from xvpd.api.reply import NO_CONTENT, Problem, Reply, problem_reply
from xvpd.api.route import Answer, Call, Match, Route, Table
from xvpd.grants.grant import mint_id
from xvpd.reason import Reason, Refusal

BODY_LIMIT: Final = 65536
REQUEST_SECONDS: Final = 30
"""How long a connection may take to bring its next request, all of it, TLS handshake included."""
_DISCARD_SECONDS: Final = 5
"""How long the body of a request that was refused for its body is read and dropped, so that the client can read why."""


class ApiRequest(Request):
    """A request on its way in, and its one answer."""

    channel: "ApiChannel"
    content: BytesIO
    gone = False
    """Whether its client has left."""
    refused = False
    """Whether it was answered before its body came."""
    route: Route | None = None
    caller: Caller | None = None
    detail = ""
    """What the log says of its answer; see `xvpd.reason.Refusal`."""
    request_id = ""

    def gotLength(self, length: int | None) -> None:
        self.content = BytesIO()
        self.request_id = self.channel.factory.new_request_id()
        if length is None:
            self._refuse(Reason.LENGTH_REQUIRED)
        elif length > BODY_LIMIT:
            self._refuse(Reason.BODY_TOO_LARGE)

    def handleContentChunk(self, data: bytes) -> None:
        if not self.refused:
            self.content.write(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        if self.refused:
            self.finish()
        else:
            super().requestReceived(command, path, version)

    def process(self) -> None:
        self.channel.factory.serve(self)

    def send(self, reply: Reply) -> None:
        """Everything of the answer, but not yet its end."""
        headers = {
            "Server": "xvpd",
            "Date": datetimeToString(self.channel.factory.reactor.seconds()).decode("ascii"),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "X-Request-Id": self.request_id,
        }
        if reply is not NO_CONTENT:
            headers |= {"Content-Type": reply.media_type, "Content-Length": str(len(reply.body))}
        for name, value in (*headers.items(), *reply.headers):
            self.responseHeaders.setRawHeaders(name, [value])
        self.setResponseCode(reply.status)
        self.write(reply.body)

    def _refuse(self, reason: Reason) -> None:
        """Answer before the body has come. The connection cannot be used again: it ends with the body, or soon."""
        self.refused = True
        self.requestHeaders.removeHeader("Expect")  # which would be answered with 100 Continue, behind the answer
        self.responseHeaders.setRawHeaders("Connection", ["close"])
        self.method, self.clientproto = b"-", b"HTTP/1.1"  # which Twisted tells with the whole request alone
        self.send(problem_reply(Problem(reason, reason.sentence), self.request_id))
        self.channel.persistent = False
        self.channel.setTimeout(_DISCARD_SECONDS)


class ApiChannel(HTTPChannel):
    """A connection, over which requests come one after the other."""

    factory: "ApiSite"
    requestFactory = ApiRequest  # noqa: N815 # Twisted's name

    def resetTimeout(self) -> None:
        """Nothing: the deadline runs from the connection, or from the last answer, whatever trickles in meanwhile."""

    def headerReceived(self, line: bytes) -> bool:
        try:
            return bool(super().headerReceived(line))
        except ValueError:  # a Content-Length of more digits than Python takes for a number
            self._respondToBadRequestAndDisconnect()
            return False

    def loseConnection(self) -> None:
        """Close, and abort if the peer does not let go: a TLS peer need never answer close_notify."""
        self.setTimeout(None)
        if self._abortingCall is None:
            self._abortingCall = self.callLater(self.abortTimeout, self.forceAbortClient)
        super().loseConnection()


class ApiSite(HTTPFactory):
    """Answers the API's requests: who is calling, which route, may they, and then the route's handler."""

    noisy = False
    protocol = ApiChannel  # type: ignore[assignment] # HTTP/1.1 alone: Twisted's own would speak HTTP/2 as well
    reactor: IReactorTime

    def __init__(
        self,
        clock: IReactorTime,
        auth: IAuthClient,
        routes: Sequence[Route],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        super().__init__(timeout=REQUEST_SECONDS, reactor=clock)
        self._auth = auth
        self._table = Table(routes)
        self._random_bytes = random_bytes
        self._log = Logger()

    def startFactory(self) -> None:
        """Open no log file: `serve` logs."""

    def stopFactory(self) -> None:
        """There is no log file to close."""

    def log(self, request: Request) -> None:
        """A line for an answer: the route that the request took, not its target, which may hold a token."""
        assert isinstance(request, ApiRequest)
        if request.route is not None and request.route.routine and request.code < 400:
            return
        self._log.info(
            "{request_id}: {method} {route} {status} for {caller} at {client}{detail}",
            request_id=request.request_id,
            method=request.method[:16].decode("ascii") if request.route is None else request.route.method,
            route="(no route)" if request.route is None else request.route.path,
            status=request.code,
            caller="nobody" if request.caller is None else request.caller.name,
            client=_client_of(request),
            detail=f" ({request.detail})" if request.detail else "",
        )

    def new_request_id(self) -> str:
        """A name for a request: our own, whatever the client may have called it."""
        return mint_id(self._random_bytes)

    def serve(self, request: ApiRequest) -> None:
        """Answer a complete request. The work on it is cancelled when its client leaves."""
        work = Deferred.fromCoroutine(self._serve(request))
        work.addErrback(lambda failure: self._log.failure("xvpd failed to answer", failure))

        def left(_: Failure) -> None:
            request.gone = True
            work.cancel()

        request.notifyFinish().addErrback(left)

    async def _serve(self, request: ApiRequest) -> None:
        try:
            reply = _reply(request, await self._answer(request))
        except Exception:
            if request.gone:
                return
            self._log.failure("{request_id}: xvpd failed", request_id=request.request_id)
            reply = _reply(request, Refusal(Reason.INTERNAL))
        if not request.gone:
            request.send(reply)
            request.finish()

    async def _answer(self, request: ApiRequest) -> Answer:
        found = self._table.find(request.method.decode("ascii"), request.path.decode("ascii"))
        if isinstance(found, Match):
            request.route = found.route
        if request.route is None or not request.route.open:
            caller = await self._caller(request)
            if isinstance(caller, Refusal):
                return caller
            request.caller = caller
            if request.route is not None and not request.route.allows(caller):
                return Refusal(Reason.FORBIDDEN)
        if isinstance(found, Problem):
            return found
        content_type = request.getHeader("Content-Type") or ""
        query = request.uri.partition(b"?")[2].decode("ascii")
        call = Call(request.request_id, request.caller, found.variables, query, content_type, request.content.read())
        return await found.route.handler(call)

    async def _caller(self, request: ApiRequest) -> Caller | Refusal:
        headers = request.requestHeaders.getRawHeaders("Authorization", [])
        if len(headers) != 1:
            return Refusal(Reason.UNAUTHORIZED, "no key" if not headers else "more than one key")
        scheme, _, key = headers[0].partition(" ")
        if scheme.lower() != "bearer":
            return Refusal(Reason.UNAUTHORIZED, "not a bearer key")
        return await self._auth.authenticate(key.strip(" "))


_CHALLENGES: Final = {Reason.UNAUTHORIZED: (("WWW-Authenticate", "Bearer"),)}


def _reply(request: ApiRequest, answer: Answer) -> Reply:
    """An answer as it is sent; what is not for the caller is left to the log."""
    if isinstance(answer, Refusal):
        request.detail = answer.detail
        answer = Problem(answer.reason, answer.reason.sentence, _CHALLENGES.get(answer.reason, ()))
    return problem_reply(answer, request.request_id) if isinstance(answer, Problem) else answer


def _client_of(request: ApiRequest) -> str:
    """The caller's address, without port; a unix socket's callers are all one."""
    peer = request.getClientAddress()
    return "unix" if isinstance(peer, UNIXAddress) else str(getattr(peer, "host", "unknown"))
