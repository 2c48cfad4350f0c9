"""RFB, the protocol of VNC: as much of it as xvpd speaks and understands itself, without any I/O."""
