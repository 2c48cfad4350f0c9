"""A console proxy daemon for XenServer and XCP-ng.

The words that every room uses (ARCHITECTURE.md explains them and the rooms):

client
    a VNC viewer that comes with an access URL
grant
    what the token in an access URL stands for: a VM, a console type, rights, an end
leg
    one side's connection; a console session has two, the client's and the tunnel
opening
    the RFB version, security and ClientInit exchange, done by xvpd on both legs
relay
    what moves the bytes between the two legs afterwards
outcome
    the one `reason.Reason` in which a console session ends
"""

__version__ = "0.1.0"
