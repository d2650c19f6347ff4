"""The sample push of Tencent's page on supplementary SMS."""

#: "Below is a sample push", in Tencent's documentation of supplementary SMS, letter by letter.
SAMPLE = """
    {
    "resend_by_sms": true,
    "sms_info": {
    "delay_trigger_time": 3600,
    "trigger_condition": 1,
    "sms_sign_name": "signe_name",
    "sms_template_id": "123",
    "sms_template_params": [
    "param1",
    "param2"
    ],
    "sms_app_id": "appId"
    },
    "audience_type": "token_list",
    "message": {
    "title": " test loop",
    "content": "test loop"
    },
    "token_list": ["025ae31e59b3**********a5866354b3","06dee08efed***********31ef23bba"],
    "message_type": "notify",
    "multi_pkg": true
    }
"""
FIRST, SECOND = "025ae31e59b3**********a5866354b3", "06dee08efed***********31ef23bba"
