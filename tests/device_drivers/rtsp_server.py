"""A live RTSP server of GStreamer's, for the system's own Python: `rtsp_server.py PORT USER PASSWORD SHADES EACH_S`.

Its pictures are of one grey, which tells the time: how often EACH_S fits into the monotonic clock, modulo SHADES.
Prints `ready PORT` and serves until its standard input ends.
"""

import sys
import time

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

LUMA = 219 / 255  # video has 16 for black and 235 for white
PIPELINE = (
    "( videotestsrc is-live=true pattern=black ! video/x-raw,width=320,height=240,framerate=20/1"
    " ! videobalance name=shade ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=10"
    " ! rtph264pay name=pay0 pt=96 config-interval=1 )"
)


def main() -> None:
    port, user, password, shades, each_s = sys.argv[1:]

    def tell(balance: Gst.Element) -> bool:
        shade = int(time.monotonic() / float(each_s)) % int(shades)
        balance.set_property("brightness", (shade + 0.5) / int(shades) * LUMA)
        return True

    def configured(_factory: GstRtspServer.RTSPMediaFactory, media: GstRtspServer.RTSPMedia) -> None:
        balance = media.get_element().get_by_name("shade")
        tell(balance)
        GLib.timeout_add(50, tell, balance)

    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(PIPELINE)
    factory.set_shared(True)
    factory.connect("media-configure", configured)
    if user:
        demand(server, factory, user, password)
    server.get_mount_points().add_factory("/live", factory)
    loop = GLib.MainLoop()
    if not server.attach(None):
        raise SystemExit("the port is taken")
    print("ready", server.get_bound_port(), flush=True)
    GLib.io_add_watch(sys.stdin, GLib.PRIORITY_DEFAULT, GLib.IO_HUP | GLib.IO_IN, lambda *_: loop.quit())
    loop.run()


def demand(server: GstRtspServer.RTSPServer, factory: GstRtspServer.RTSPMediaFactory, user: str, password: str) -> None:
    """Nobody sees anything without this name and password, by digest alone as cameras ask for it."""
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    auth = GstRtspServer.RTSPAuth()
    auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
    auth.add_digest(user, password, token)
    server.set_auth(auth)
    permissions = GstRtspServer.RTSPPermissions()
    for right in ("media.factory.access", "media.factory.construct"):
        permissions.add_permission_for_role("viewer", right, True)
    factory.set_permissions(permissions)


if __name__ == "__main__":
    main()
